"""External LoRA adapters: merged into their base once, since vLLM serves none with a head of its own."""

import shutil
from pathlib import Path
from typing import Literal

from core.errors import InputError
from core.pretrained import SAFE, load_tokenizer
from featurize.tokens.packing import FILE_NAME
from train.finetune.networks import load_with_head
from train.finetune.saved_model import SHARD

_WEIGHTS = "adapter_model.safetensors"


def merge_adapter(base: str, adapter: str, folder: Path, mode: Literal["classify", "judge"]) -> None:
    """Write the base with the adapter's weights added to `folder`, with tokenizer and packing.json.

    `adapter` is a folder that peft saved. The memory must hold the base in its own type.

    Raises InputError if the base cannot be loaded. Errors of the adapter are those of peft and transformers.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if not (Path(adapter) / _WEIGHTS).exists():
        raise InputError(f"there is no {_WEIGHTS}", adapter, "name the folder that peft saved, as safetensors.")
    if mode == "classify":
        model = load_with_head(base, "auto")
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", **SAFE)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(folder, max_shard_size=SHARD)
    load_tokenizer(base).save_pretrained(folder)
    if (Path(adapter) / FILE_NAME).exists():
        shutil.copy(Path(adapter) / FILE_NAME, folder / FILE_NAME)
