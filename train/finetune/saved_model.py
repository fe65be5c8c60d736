"""Save a fine-tuned model with tokenizer and packing, for transformers and vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.pretrained import SHARD_SIZE, load_tokenizer
from featurize.tokens.packing import Packer, save_packing
from train.finetune.networks import load_with_head

if TYPE_CHECKING:
    from train.finetune.task import FoldTask

ADAPTER_FOLDER = "adapter"


def save_model(model: Any, task: FoldTask, folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write the model to `folder`: safetensors, configuration, tokenizer, packing.json.

    Adapters must be merged into their base before: vLLM serves no adapters with a head of their own. Adapters cannot be
    merged into a 4-bit base. So the adapters of `save_adapters` are merged into a newly loaded base.
    """
    if task.settings.is_4bit:
        model = _merge_into_full_base(task, folder / ADAPTER_FOLDER)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    load_tokenizer(task.store.base()).save_pretrained(folder)
    save_packing(_packer(task), folder)


def save_adapters(model: Any, task: FoldTask, folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write the model's adapters, if it has any, to `folder`/adapter, with packing.json. They are small to share."""
    if task.settings.adapters is not None:
        model.save_pretrained(folder / ADAPTER_FOLDER)
        save_packing(_packer(task), folder / ADAPTER_FOLDER)


def _packer(task: FoldTask) -> Packer:
    settings = task.settings
    return Packer(load_tokenizer(task.store.base()), settings.max_tokens, settings.layout, settings.truncation)


def _merge_into_full_base(task: FoldTask, adapter: Path) -> Any:  # noqa: ANN401 - peft has no types
    # Weights of 4 bits would carry their rounding into the merged model.
    import torch
    from peft import PeftModel

    base = load_with_head(task.store.base(), torch.bfloat16, task.data.classes)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()
