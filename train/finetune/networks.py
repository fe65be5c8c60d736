"""Pre-trained models with a three-way head: loading them, and which of their parameters a stage trains."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.safe_weights import SAFE
from votes.schema import LABELS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

    from train.finetune.settings import FineTuning, Lora, Trained

_CLASSIFIER = "ForSequenceClassification"
# Encoders whose first position is the one behind the number of their padding token.
_BEHIND_PADDING = {
    "camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


def load_network(base: str, settings: FineTuning) -> Any:  # noqa: ANN401 - a model of transformers, or like one
    """The model of a folder or hub id with a head for A, B and tie, ready to be trained; LoRA adapters on it if asked.

    A head or adapter that the checkpoint lacks is made of random numbers, the same ones for the same seed; so is the
    last layer of a head that tells other classes apart, be they as many.

    Raises InputError if the model cannot be loaded, or a 4-bit base is asked for without a GPU.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification

    options: dict[str, Any] = {}
    options["dtype"] = base_dtype(settings)
    if settings.base_4bit:
        options["quantization_config"] = _four_bits()
    config = load_config(base)
    if config.model_type == "gemma2":
        # transformers' default attention skips Gemma 2's soft-capping of scores, which vLLM applies.
        options["attn_implementation"] = "eager"
    torch.manual_seed(settings.seed)
    kind = AutoModel if settings.head == "answers" else AutoModelForSequenceClassification
    foreign = bool(foreign_head(base)) and settings.head == "classifier"
    try:
        model: Any
        model, loading = kind.from_pretrained(
            base, config=config, ignore_mismatched_sizes=foreign, output_loading_info=True, **options, **SAFE
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error
    if foreign:
        _renew_head(model, [str(key) for key, *_ in loading["mismatched_keys"]], base, settings.seed)
    if settings.head == "answers":
        from train.finetune.answers_model import AnswersModel

        model = AnswersModel(model)
    if settings.lora is not None:
        torch.manual_seed(settings.seed)
        model = add_lora(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def base_dtype(settings: FineTuning) -> torch.dtype:
    """The precision of the parameters as they are loaded."""
    import torch

    # The base of adapters is not trained, so it needs no more precision than it is computed in.
    small = settings.lora is not None and settings.precision == "bfloat16"
    return torch.bfloat16 if small else torch.float32


def load_config(base: str) -> PreTrainedConfig:
    """The configuration of a model with the head set to three labels. Raises InputError if there is none."""
    config = _read_config(base)
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: index for index, label in enumerate(LABELS)}
    config.problem_type = "single_label_classification"
    if getattr(config, "pad_token_id", None) is None:
        # Without one a causal model would read its answer off a padding token; Llama 3 has none of its own.
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end
    return config


def _read_config(base: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 by instructions of its own; taken for granted but on x86."""
    import torch

    has = torch.cpu.get_capabilities()
    return bool(has.get("architecture") != "x86_64" or has.get("avx512_bf16") or has.get("amx_bf16"))


def forward_options(settings: FineTuning) -> dict[str, bool]:
    """What a model is called with beside its input: a decoder is not to keep keys and values that nobody reads."""
    return {} if settings.lora is None else {"use_cache": False}


def load_whole(base: str, dtype: torch.dtype | str) -> PreTrainedModel:
    """A base with a head for A, B and tie, to take adapters that bring the trained head. Raises InputError as above."""
    from transformers import AutoModelForSequenceClassification

    options: dict[str, Any] = {"config": load_config(base), "ignore_mismatched_sizes": bool(foreign_head(base))}
    try:
        return AutoModelForSequenceClassification.from_pretrained(base, dtype=dtype, **options, **SAFE)
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error


def foreign_head(base: str) -> list[str]:
    """The classes that a checkpoint's head tells apart, if it has a head and that is not one for A, B and tie."""
    config = _read_config(base)
    classes = [str(config.id2label[number]) for number in sorted(config.id2label)]
    has_head = any(name.endswith(_CLASSIFIER) for name in config.architectures or [])
    return classes if has_head and classes != list(LABELS) else []


def _renew_head(model: PreTrainedModel, resized: list[str], base: str, seed: int) -> None:
    import torch
    from torch import nn

    inside = f"{model.base_model_prefix}."
    wrong = [name for name in resized if name.startswith(inside)]
    if wrong:
        raise InputError(f"the weights do not fit config.json, first {wrong[0]}", base, "restore the model's files.")
    torch.manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == len(LABELS) and not name.startswith(inside):
            nn.init.normal_(module.weight, std=float(getattr(model.config, "initializer_range", 0.02)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def most_tokens(config: PreTrainedConfig, decoder: bool) -> int | None:
    """The longest record that a model can be given, in tokens; None if its positions are relative.

    vLLM keeps one position of a decoder for itself; see infer.scoring.vllm_engine.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or not getattr(config, "position_biased_input", True):
        return None
    if decoder:
        return int(positions) - 1
    return int(positions) - (int(config.pad_token_id) + 1 if config.model_type in _BEHIND_PADDING else 0)


def load_tokenizer(base: str) -> Any:  # noqa: ANN401 - a tokenizer of transformers, which has no types
    """The tokenizer of a folder or hub id. Raises InputError if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error


def locate(model: str) -> str:
    """The absolute path of a model's folder, the packaged sentence encoder's folder, or a hub id as it is.

    Raises InputError if there is no such folder.
    """
    from featurize.families import embeddings

    if model == embeddings.PACKAGED:
        return embeddings.locate_encoder(model)
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return os.path.abspath(path)
    if path.startswith((".", "/")) or model.count("/") > 1:
        raise InputError("no such folder", where=model, fix="check the path, or give a model's id on the hub.")
    return model


def _cannot_load(base: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    fix = "check the name and the network, or give a folder with the model's files."
    if os.path.isdir(base) and not any(name.endswith(".safetensors") for name in os.listdir(base)):
        fix = (
            "give a folder with safetensors. A pytorch_model.bin is pickle, which can run code; if you trust it, load "
            "it once with transformers and save it again with save_pretrained."
        )
    return InputError(f"the model cannot be loaded: {reason}", base, fix)


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
    """The model with adapters on all its linear layers; these and the head are trained, the rest is frozen."""
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
    # Gradient checkpoints begin at the embeddings, which are frozen.
    adapted.enable_input_require_grads()
    return adapted


def set_trained(model: PreTrainedModel, trained: Trained, lora: bool) -> dict[str, torch.nn.Parameter]:
    """Let exactly the parameters of a stage be trained, and return them by name.

    Raises InputError if the model has fewer layers than are asked for.
    """
    if not lora:
        inside = _backbone_names(model)
        wanted = set() if trained == "all" else inside
        if isinstance(trained, int):
            wanted = inside - _last_layers(model, trained)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in wanted)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _backbone_names(model: PreTrainedModel) -> set[str]:
    """Names of the backbone's parameters. A pooler counts to the head: it reads the first token for it alone."""
    prefix = f"{model.base_model_prefix}."
    return {
        name
        for name, _ in model.named_parameters()
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")
    }


def layers_of(model: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """Name and list of the backbone's layers: the longest list of modules in it, whatever the architecture calls it."""
    from torch import nn

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda item: len(item[1]))


def _last_layers(model: PreTrainedModel, count: int) -> set[str]:
    where, layers = layers_of(model)
    if count > len(layers):
        raise InputError(f"the model has {len(layers)} layers, not {count}", "train", "lower it, or write all.")
    prefixes = tuple(f"{where}.{index}." for index in range(len(layers) - count, len(layers)))
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
