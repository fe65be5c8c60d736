"""What fine-tuning takes before it is tried: parameters, peak memory by part, and floating-point operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from train.finetune.flops import attention_operations, forward_operations, multiplied_parameters
from train.finetune.networks import forward_options
from train.finetune.sampler import largest_micro_batches, plan_epoch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from train.finetune.settings import FineTuning

_FULL = 4  # bytes of a float32: parameters that are trained, their gradients, each of AdamW's two moments
_HALF = 2
# Bytes of a weight, with 0.127 bits for its constants, which are quantised too: Dettmers et al. 2023, section 3.
_FOUR_BIT = 0.5 + 0.127 / 8


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak of a step on one worker, and what they are made of."""

    parameters: int  # of the base and its head
    adapters: int
    trained: int
    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def peak(self) -> float:
        """All parts together."""
        return self.weights + self.gradients + self.optimizer + self.activations


def plan_memory(config: PreTrainedConfig, settings: FineTuning, shapes: Sequence[tuple[int, int]]) -> MemoryPlan:
    """The peak of a step whose micro-batches have these shapes, in sequences and tokens of each: see `shapes_of`.

    Weights, gradients and optimizer are counted: 4 bytes for each trained parameter, its gradient and each of AdamW's
    moments; frozen weights have their own precision. Activations are not estimated by a formula for one architecture:
    the model's own forward and backward pass, with autocast and gradient checkpoints as in training, run on tensors
    that have shapes and no numbers, and the bytes that are alive at the worst moment are counted.

    The stage that trains everything is the one reckoned with. Kernels are chosen as on a CPU: those of GPUs may keep
    less or more for attention. Not in it: the CUDA context (about 0.5 GiB), kernels' workspaces, and what the
    allocator leaves unused between blocks.
    """
    import torch

    model = _meta_model(config, settings)
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
    return MemoryPlan(
        parameters,
        sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" in name),
        trained,
        weights,
        float(trained * _FULL),
        float(2 * trained * _FULL),
        max(_step_bytes(_meta_model(config, settings), settings, *shape) for shape in shapes),
    )


def shapes_of(lengths: npt.NDArray[np.integer], settings: FineTuning) -> list[tuple[int, int]]:
    """The largest micro-batches of a training on records with these lengths (n,): sequences, and tokens of each."""
    plans = [
        plan_epoch(
            lengths,
            settings.records_per_step,
            settings.tokens_per_batch,
            settings.orders,
            (settings.seed, number, epoch),
        )
        for number, stage in enumerate(settings.stages)
        for epoch in range(stage.epochs)
    ]
    batches = largest_micro_batches(plans, lengths)
    return sorted({(len(batch) * settings.orders, int(lengths[batch].max())) for batch in batches})


def flops_per_token(config: PreTrainedConfig, plan: MemoryPlan, settings: FineTuning, sequence: int) -> float:
    """Floating-point operations of one step for each token, in sequences of so many.

    2 per parameter forward, 2 for the gradients of activations, and 2 for those of parameters where they are trained;
    2 more where the forward pass is done again (gradient checkpointing). Attention takes twice as much backward as
    forward, since both factors of its products are activations. See train.finetune.flops.
    """
    forward = predicting_flops_per_token(config, plan, sequence)
    multiplied = multiplied_parameters(config, plan.parameters) + plan.adapters
    attention = attention_operations(config, sequence)
    backward = 2 * multiplied + 2 * attention + 2 * (plan.trained if settings.lora else multiplied)
    return forward * (1 + settings.gradient_checkpointing) + backward


def predicting_flops_per_token(config: PreTrainedConfig, plan: MemoryPlan, sequence: int) -> float:
    """Floating-point operations of a forward pass for each token; adapters are multiplied beside their base."""
    return forward_operations(config, plan.parameters, sequence) + 2.0 * plan.adapters


def _bytes(settings: FineTuning) -> int:
    return _HALF if settings.precision == "bfloat16" else _FULL


def _step_bytes(model: Any, settings: FineTuning, rows: int, sequence: int) -> float:  # noqa: ANN401
    """Bytes at the peak of a forward and backward pass, without parameters and their gradients."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from train.finetune.memory_tracker import LiveBytes

    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")  # from the meta device, for which there is no autocast
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        ids = torch.zeros((rows, sequence), dtype=torch.long)
        # Sequences of equal length need no mask, and causal models look into one, where numbers would be needed.
        mask = None if settings.lora is not None else torch.ones_like(ids)
        there = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in trained)]
        with LiveBytes(there) as live:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
                logits = model(input_ids=ids, attention_mask=mask, **forward_options(settings)).logits
            logits.float().sum().backward()
    return float(live.peak)


def _meta_model(config: PreTrainedConfig, settings: FineTuning) -> Any:  # noqa: ANN401 - a model of transformers
    """The model that train.finetune.networks.load_network loads, with shapes and no numbers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from train.finetune.networks import add_lora, base_dtype

    attention = "eager" if config.model_type == "gemma2" else None
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(
            config, dtype=base_dtype(settings), attn_implementation=attention
        )
        if settings.lora is not None:
            model = add_lora(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()
