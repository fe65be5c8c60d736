"""What fine-tuning takes before it is tried: parameters, peak memory by part, and floating-point operations."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.finetune_settings import FineTuning

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_FULL = 4  # bytes of a float32: parameters that are trained, their gradients, each of AdamW's two moments
_HALF = 2
_FOUR_BIT = (
    0.5 + 0.127 / 8 * 4
)  # bytes of a weight with its constants, quantised twice: Dettmers et al. 2023, section 3


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak of a step on one worker, and what they are made of."""

    parameters: int
    trained: int
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def peak(self) -> float:
        """All parts together."""
        return self.weights + self.gradients + self.optimizer + self.activations


def plan_memory(config: "PreTrainedConfig", settings: FineTuning, sequence: int) -> MemoryPlan:
    """The peak of a step with micro-batches of `settings.tokens_per_batch` tokens in sequences of `sequence` tokens.

    Weights, gradients and optimizer are counted: 4 bytes for each trained parameter, its gradient and each of AdamW's
    moments; frozen weights have their own precision. Activations are not estimated by a formula for one architecture:
    the model's own forward pass runs on torch's meta device, which has shapes and no numbers, and what autograd keeps
    for the backward pass is added up. With gradient checkpointing that is each layer's input, and during the backward
    pass one layer at a time keeps all (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").

    The stage that trains everything is the one reckoned with. Attention keeps its whole matrix of scores there, which
    fused kernels do not: for them the peak is an upper bound. Not in it: the CUDA context (about 0.5 GiB), kernels'
    workspaces, and what the allocator leaves unused between blocks.
    """
    import torch

    rows = max(1, settings.tokens_per_batch // sequence)
    with torch.device("meta"):
        model = _meta_model(config, settings)
        layers = max(1, int(getattr(config, "num_hidden_layers", 1)))
        kept = _kept_bytes(model, rows, sequence, causal=settings.lora is not None)
    if settings.gradient_checkpointing:
        inputs = rows * sequence * int(config.hidden_size) * _bytes(settings) * layers
        kept = inputs + kept / layers
    parameters = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if settings.lora is None:
        weights = float(parameters * _FULL)
    else:
        head = sum(p.numel() for name, p in model.named_parameters() if "score" in name and p.requires_grad)
        frozen = parameters - head
        linear = sum(
            module.weight.numel()
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and "lora_" not in name and "score" not in name
        )
        if settings.base_4bit:
            weights = linear * _FOUR_BIT + (frozen - linear) * _HALF + trained * _FULL
        else:
            weights = float(frozen * _bytes(settings) + trained * _FULL)
    return MemoryPlan(parameters, trained, weights, float(trained * _FULL), float(2 * trained * _FULL), kept)


def flops_per_token(config: "PreTrainedConfig", plan: MemoryPlan, settings: FineTuning, sequence: int) -> float:
    """Floating-point operations of one step for each token, in sequences of so many.

    2 per parameter forward, 2 for the gradients of activations, and 2 for those of parameters where they are trained;
    2 more where the forward pass is done again (gradient checkpointing). Attention's scores and their use take
    4 x layers x hidden x sequence forward (Chowdhery et al. 2022, "PaLM", appendix B). Embeddings are looked up, not
    multiplied.
    """
    embeddings = int(config.vocab_size) * int(config.hidden_size)
    multiplied = plan.parameters - embeddings
    attention = 4 * int(config.num_hidden_layers) * int(config.hidden_size) * sequence
    forward = 2 * multiplied + attention
    passes = 2 + settings.gradient_checkpointing
    return float(forward * passes + (2 * plan.trained if settings.lora else forward))


def _bytes(settings: FineTuning) -> int:
    return _HALF if settings.precision == "bfloat16" else _FULL


def _meta_model(config: "PreTrainedConfig", settings: FineTuning) -> Any:  # noqa: ANN401 - a model of transformers
    import torch
    from transformers import AutoModelForSequenceClassification

    from train.networks import add_lora

    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    attention = "eager" if config.model_type == "gemma2" else None
    model = AutoModelForSequenceClassification.from_config(config, dtype=dtype, attn_implementation=attention)
    return model if settings.lora is None else add_lora(model, settings.lora)


def _kept_bytes(model: Any, rows: int, sequence: int, causal: bool) -> float:  # noqa: ANN401
    """Bytes that autograd keeps of a forward pass, parameters left out."""
    import torch

    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    alive = []

    def pack(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # so that no other storage gets its address
        return tensor

    model.train()
    ids = torch.zeros((rows, sequence), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        # Sequences of equal length need no mask, and causal models look into one, where numbers would be needed.
        model(input_ids=ids, attention_mask=None if causal else torch.ones_like(ids))
    return float(sum(kept.values()))
