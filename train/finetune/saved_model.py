"""What fine-tuning leaves: a folder that transformers and vLLM load, with tokenizer and packing beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurize.tokens.packing import Packer, save_packing
from train.finetune.networks import load_tokenizer, load_whole

if TYPE_CHECKING:
    from train.finetune.task import FoldTask

ADAPTER = "adapter"
SHARD = "4GB"  # of weights in one file, which is written from memory


def save_model(model: Any, task: FoldTask, folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write the model to `folder`: safetensors, configuration, tokenizer, packing.json.

    Adapters have to be merged into their base before, since vLLM serves none with a head of its own; into one of 4 bits
    they cannot be, and a whole base takes those that `save_adapters` wrote.
    """
    if task.settings.base_4bit:
        model = _on_a_whole_base(task, folder / ADAPTER)
    model.save_pretrained(folder, max_shard_size=SHARD)
    load_tokenizer(task.store.base()).save_pretrained(folder)
    save_packing(_packer(task), folder)


def save_adapters(model: Any, task: FoldTask, folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write adapters, if the model has any, to `folder`/adapter with packing.json: small enough to be passed on."""
    if task.settings.lora is not None:
        model.save_pretrained(folder / ADAPTER)
        save_packing(_packer(task), folder / ADAPTER)


def _packer(task: FoldTask) -> Packer:
    return Packer(load_tokenizer(task.store.base()), task.max_tokens, task.layout, task.truncation)


def _on_a_whole_base(task: FoldTask, adapter: Path) -> Any:  # noqa: ANN401 - peft has no types
    # Weights rounded to 4 bits would carry their rounding into the merged model: a whole base takes the adapters.
    import torch
    from peft import PeftModel

    whole = load_whole(task.store.base(), torch.bfloat16)
    return PeftModel.from_pretrained(whole, adapter).merge_and_unload()
