"""Merge external LoRA adapters into their base, since vLLM serves no adapter with its own head."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError
from core.pretrained import SHARD_SIZE, load_tokenizer
from featurize.tokens.packing import PACKING_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WEIGHTS = "adapter_model.safetensors"


def merge_adapter(base: str, adapter: str, folder: Path, load: Callable[[str], PreTrainedModel]) -> None:
    """Write the base with the adapter's weights added to `folder`, with its tokenizer and packing.json.

    `adapter` is a folder that peft saved. `load` loads the base. It takes memory for the whole base at its own
    precision.

    Raises InputError if the base cannot be loaded; peft and transformers raise what is wrong with an adapter.
    """
    from peft import PeftModel

    if not (Path(adapter) / _WEIGHTS).exists():
        raise InputError(f"there is no {_WEIGHTS}", adapter, "name the folder that peft saved, as safetensors.")
    merged = PeftModel.from_pretrained(load(base), adapter).merge_and_unload()
    merged.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    load_tokenizer(base).save_pretrained(folder)
    if (Path(adapter) / PACKING_FILE).exists():
        shutil.copy(Path(adapter) / PACKING_FILE, folder / PACKING_FILE)
