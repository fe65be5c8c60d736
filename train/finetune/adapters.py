"""LoRA adapters that come without their base: merged into it once, since vLLM serves none with a head of its own."""

import shutil
from pathlib import Path
from typing import Literal

from core.errors import InputError
from core.safe_weights import SAFE
from featurize.tokens.packing import FILE_NAME
from train.finetune.networks import load_tokenizer, load_whole
from train.finetune.saved_model import SHARD

_WEIGHTS = "adapter_model.safetensors"


def merge_adapter(base: str, adapter: str, folder: Path, mode: Literal["classify", "judge"]) -> None:
    """Write the base with the adapter's weights added to `folder`, tokenizer and packing.json with it.

    `adapter` is a folder that peft saved. It needs memory for the whole base in its own precision.

    Raises InputError if the base cannot be loaded; peft and transformers say what is wrong with an adapter.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if not (Path(adapter) / _WEIGHTS).exists():
        raise InputError(f"there is no {_WEIGHTS}", adapter, "name the folder that peft saved, as safetensors.")
    if mode == "classify":
        model = load_whole(base, "auto")
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", **SAFE)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(folder, max_shard_size=SHARD)
    load_tokenizer(base).save_pretrained(folder)
    if (Path(adapter) / FILE_NAME).exists():
        shutil.copy(Path(adapter) / FILE_NAME, folder / FILE_NAME)
