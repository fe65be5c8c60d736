"""What fine-tuning leaves: a folder that transformers and vLLM load, with tokenizer and packing beside the weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from preference.packing import Packer, save_packing
from preference.weights import SAFE
from train.networks import foreign_head, load_config, load_tokenizer

if TYPE_CHECKING:
    from train.finetune_loop import FoldTask

ADAPTER = "adapter"
SHARD = "4GB"  # of weights in one file, which is written from memory


def save_model(model: Any, task: "FoldTask", folder: Path) -> None:  # noqa: ANN401 - peft has no types
    """Write the model to `folder`: safetensors, configuration, tokenizer, packing.json.

    Adapters are merged into their base, since vLLM serves no adapter with a head of its own; they are kept beside it in
    `adapter`, small enough to be passed on.
    """
    tokenizer = load_tokenizer(task.store.base())
    packer = Packer(tokenizer, task.max_tokens, task.layout, task.truncation)
    if task.settings.lora is not None:
        model.save_pretrained(folder / ADAPTER)
        save_packing(packer, folder / ADAPTER)
        model = _merged(model, task, folder / ADAPTER)
    model.save_pretrained(folder, max_shard_size=SHARD)
    tokenizer.save_pretrained(folder)
    save_packing(packer, folder)


def _merged(model: Any, task: "FoldTask", adapter: Path) -> Any:  # noqa: ANN401 - peft has no types
    if not task.settings.base_4bit:
        return model.merge_and_unload()
    # Weights rounded to 4 bits would carry their rounding into the merged model: a whole base takes the adapters.
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = task.store.base()
    whole = AutoModelForSequenceClassification.from_pretrained(
        base,
        config=load_config(base),
        dtype=torch.bfloat16,
        ignore_mismatched_sizes=bool(foreign_head(base)),  # the trained head comes with the adapters
        **SAFE,
    )
    return PeftModel.from_pretrained(whole, adapter).merge_and_unload()
