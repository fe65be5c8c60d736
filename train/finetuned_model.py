"""What fine-tuning leaves: a folder that transformers and vLLM load, with tokenizer and packing beside the weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from preference.packing import Packer, save_packing
from train.networks import load_tokenizer, load_whole

if TYPE_CHECKING:
    from train.finetune_task import FoldTask

ADAPTER = "adapter"
SHARD = "4GB"  # of weights in one file, which is written from memory


def save_model(model: Any, task: "FoldTask", folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write the model to `folder`: safetensors, configuration, tokenizer, packing.json.

    Adapters have to be merged into their base (see `merge`), since vLLM serves none with a head of its own; into one of
    4 bits they cannot be, and a whole base takes those that `save_adapters` wrote.
    """
    tokenizer = load_tokenizer(task.store.base())
    packer = Packer(tokenizer, task.max_tokens, task.layout, task.truncation)
    if task.settings.base_4bit:
        model = _on_a_whole_base(task, folder / ADAPTER)
    model.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    save_packing(packer, folder)


def save_adapters(model: Any, task: "FoldTask", folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write adapters, if the model has any, to `folder`/adapter with packing.json: small enough to be passed on."""
    if task.settings.lora is not None:
        model.save_pretrained(folder / ADAPTER)
        tokenizer = load_tokenizer(task.store.base())
        save_packing(Packer(tokenizer, task.max_tokens, task.layout, task.truncation), folder / ADAPTER)


def merge(model: Any) -> Any:  # noqa: ANN401 - peft has no types
    """The base with the adapters added to its weights, in their precision."""
    return model.merge_and_unload()


def _on_a_whole_base(task: "FoldTask", adapter: Path) -> Any:  # noqa: ANN401 - peft has no types
    # Weights rounded to 4 bits would carry their rounding into the merged model: a whole base takes the adapters.
    import torch
    from peft import PeftModel

    whole = load_whole(task.store.base(), torch.bfloat16)
    return PeftModel.from_pretrained(whole, adapter).merge_and_unload()
