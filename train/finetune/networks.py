"""Load pre-trained models with a three-way head, and select the parameters that a stage trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.pretrained import SAFE_LOADING, loading_error
from votes.schema import LABELS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from core.settings.finetune import FinetunedModel, Lora, TrainedPart

_CLASSIFIER = "ForSequenceClassification"
# Encoders whose first position is the id of their padding token plus one.
_AFTER_PADDING = {
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def load_network(base: str, settings: FinetunedModel, seed: int, classes: int = 3) -> Any:  # noqa: ANN401
    """Load the model of a folder or hub id, with a head for the outcomes and configured LoRA adapters.

    A head or adapter that the checkpoint lacks is initialized at random from `seed`. So is the last layer of a head for
    other classes, even if it has as many.

    Raises InputError if the model cannot be loaded, or a 4-bit base has no GPU.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    options: dict[str, Any] = {"dtype": base_dtype(settings)}
    if settings.is_4bit:
        options["quantization_config"] = _four_bits()
    config = load_config(base, classes)
    if config.model_type == "gemma2":
        # transformers' default attention skips Gemma 2's soft-capping of scores, which vLLM applies.
        options["attn_implementation"] = "eager"
    torch.manual_seed(seed)
    kind = AutoModel if settings.compares_answers else AutoModelForSequenceClassification
    foreign = bool(other_head_classes(base, classes)) and not settings.compares_answers
    try:
        model: Any
        model, loading = kind.from_pretrained(
            base, config=config, ignore_mismatched_sizes=foreign, output_loading_info=True, **options, **SAFE_LOADING
        )
    except (OSError, ValueError) as error:
        raise loading_error(base, error) from error
    if foreign:
        _reset_head(model, [str(key) for key, *_ in loading["mismatched_keys"]], base, seed)
    if settings.compares_answers:
        from train.finetune.answers_model import AnswersModel

        model = AnswersModel(model, classes)
    if settings.adapters is not None:
        torch.manual_seed(seed)
        model = add_lora(model, settings.adapters)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def base_dtype(settings: FinetunedModel) -> torch.dtype:
    """Return the type of the parameters as they are loaded."""
    import torch

    # The base of adapters is not trained, so the type of its activations is precise enough.
    is_small = settings.adapters is not None and settings.dtype == "bfloat16"
    return torch.bfloat16 if is_small else torch.float32


def load_config(base: str, classes: int = 3) -> PreTrainedConfig:
    """Return a model's configuration with the head set to the outcomes. Raises InputError if there is none."""
    config = _read_config(base)
    config.id2label = dict(enumerate(LABELS[:classes]))
    config.label2id = {label: index for index, label in enumerate(LABELS[:classes])}
    config.problem_type = "single_label_classification"
    if getattr(config, "pad_token_id", None) is None:
        # Without it a causal model would classify at a padding token. Llama 3 has no padding token.
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end
    return config


def _read_config(base: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise loading_error(base, error) from error


def cpu_has_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16 matrices. Only x86 CPUs are checked."""
    import torch

    features = torch.cpu.get_capabilities()
    return bool(features.get("architecture") != "x86_64" or features.get("avx512_bf16") or features.get("amx_bf16"))


def load_with_head(base: str, dtype: torch.dtype | str, classes: int = 3) -> PreTrainedModel:
    """Load a base with a head for the outcomes, for adapters that have the trained head. Raises InputError as above."""
    from transformers import AutoModelForSequenceClassification

    foreign = bool(other_head_classes(base, classes))
    options: dict[str, Any] = {"config": load_config(base, classes), "ignore_mismatched_sizes": foreign}
    try:
        return AutoModelForSequenceClassification.from_pretrained(base, dtype=dtype, **options, **SAFE_LOADING)
    except (OSError, ValueError) as error:
        raise loading_error(base, error) from error


def other_head_classes(base: str, classes: int = 3) -> list[str]:
    """Return the classes of a checkpoint's head; nothing if it has no head, or one for the outcomes."""
    config = _read_config(base)
    names = [str(config.id2label[number]) for number in sorted(config.id2label)]
    has_head = any(name.endswith(_CLASSIFIER) for name in config.architectures or [])
    return names if has_head and names != list(LABELS[:classes]) else []


def _reset_head(model: PreTrainedModel, resized: list[str], base: str, seed: int) -> None:
    import torch
    from torch import nn

    inside = f"{model.base_model_prefix}."
    wrong = [name for name in resized if name.startswith(inside)]
    if wrong:
        raise InputError(f"the weights do not fit config.json, first {wrong[0]}", base, "restore the model's files.")
    torch.manual_seed(seed)
    for name, module in model.named_modules():
        outputs = model.config.num_labels
        if isinstance(module, nn.Linear) and module.out_features == outputs and not name.startswith(inside):
            nn.init.normal_(module.weight, std=float(getattr(model.config, "initializer_range", 0.02)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def max_positions(config: PreTrainedConfig, decoder: bool) -> int | None:
    """Return the most tokens that a model can read; None if its positions are relative.

    vLLM reserves one position of a decoder; see infer.scoring.vllm_engine.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or not getattr(config, "position_biased_input", True):
        return None
    if decoder:
        return int(positions) - 1
    return int(positions) - (int(config.pad_token_id) + 1 if config.model_type in _AFTER_PADDING else 0)


def _four_bits() -> Any:  # noqa: ANN401 - a configuration of transformers, which has no types
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise InputError("a 4-bit base needs a GPU", "base_4bit", "set it to false, or train on a node with GPUs.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("a 4-bit base needs bitsandbytes", "base_4bit", "run `pip install bitsandbytes`.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",  # Dettmers et al. 2023, "QLoRA": the type for weights that are normal
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["score"],
    )


def add_lora(model: PreTrainedModel, lora: Lora) -> Any:  # noqa: ANN401 - peft has no types
    """Return the model with adapters on all its linear layers. Only the adapters and the head are trained."""
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,  # which trains the head as well, in full
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # the optimizer's steps are too small for bfloat16
    # Gradient checkpointing starts at the embeddings, which are frozen.
    adapted.enable_input_require_grads()
    return adapted


def freeze_untrained(model: PreTrainedModel, trained: TrainedPart, lora: bool) -> dict[str, torch.nn.Parameter]:
    """Freeze all parameters that a stage does not train, and return the others by name.

    Raises InputError if the model has fewer layers than the stage trains.
    """
    if not lora:
        backbone = _backbone_names(model)
        frozen = set() if trained == "all" else backbone
        if isinstance(trained, int):
            frozen = backbone - _last_layers(model, trained)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _backbone_names(model: PreTrainedModel) -> set[str]:
    """Return the names of the backbone's parameters. A pooler belongs to the head: it reads the first token for it."""
    prefix = f"{model.base_model_prefix}."
    return {
        name
        for name, _ in model.named_parameters()
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")
    }


def backbone_layers(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """Return name and list of the backbone's layers: the longest list of modules in it, since names differ."""
    from torch import nn

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda item: len(item[1]))


def _last_layers(model: PreTrainedModel, count: int) -> set[str]:
    where, layers = backbone_layers(model)
    if count > len(layers):
        raise InputError(f"the model has {len(layers)} layers, not {count}", "train", "lower it, or write all.")
    prefixes = tuple(f"{where}.{index}." for index in range(len(layers) - count, len(layers)))
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
