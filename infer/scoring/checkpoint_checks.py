"""Check that a checkpoint can score records, before an engine starts."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import InputError
from core.registry import MODES
from featurize.tokens.packing import PACKING_FILE as PACKING
from featurize.tokens.packing import check_packing

if TYPE_CHECKING:
    from core.settings.packing import Truncation
    from infer.scoring.mode import ScoringMode

_RESTORE: Final = "restore the file, or name another checkpoint."


def require_vllm(gpus: int) -> None:
    """Raise InputError with the command that installs vLLM if it is missing."""
    if importlib.util.find_spec("vllm") is None:
        extra = "llm-gpu" if gpus else "llm-cpu"
        raise InputError("scoring with a language model needs vLLM", fix=f"pip install -e '.[{extra}]'")


def check_checkpoint(
    checkpoint: str,
    max_tokens: int,
    mode_name: str = "classify",
    truncation: Truncation = "right",
    classes: int | None = 3,
) -> None:
    """Raise InputError with the reason unless `checkpoint` is a model that scores records packed our way.

    A folder must hold config.json, safetensors, tokenizer.json and whatever the scoring mode needs. Of a model on the
    hub only its JSON files are read.
    """
    mode: ScoringMode = MODES.get(mode_name)
    folder = Path(checkpoint)
    if folder.is_dir():
        config = _read_json(folder, "config.json")
        mode.check_config(config, checkpoint, classes)
        _check_positions(config, checkpoint, max_tokens)
        mode.check_weights(_weights(folder), folder, classes)
        if mode.fixed_packing:
            check_packing(folder, max_tokens, truncation)
        _check_vocabulary(folder, config)
    elif folder.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1:
        raise InputError(
            "no such folder", checkpoint, "name a checkpoint's folder, or a model on the hub (owner/name)."
        )
    else:
        config = _hub_config(checkpoint)
        mode.check_config(config, checkpoint, classes)
        _check_positions(config, checkpoint, max_tokens)
        if mode.fixed_packing:
            check_packing(_hub_folder(checkpoint, PACKING), max_tokens, truncation)


def _hub_config(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError) as error:
        reason = f"neither a folder nor a model that the hub provides: {str(error).splitlines()[0]}"
        raise InputError(reason, name, "name a checkpoint's folder.") from error
    return config


def _hub_folder(name: str, file: str) -> Path:
    """Return the folder on this machine that has a file of a model on the hub."""
    from transformers.utils import cached_file

    try:
        return Path(cached_file(name, file)).parent
    except OSError as error:
        reason = f"the hub has no {file} for it, so the packing of its records is unknown"
        raise InputError(f"{reason}: {str(error).splitlines()[0]}", name, "train it with the job train_llm.") from error


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"the checkpoint has no {name}", str(folder), _RESTORE) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", str(folder / name), _RESTORE) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", str(folder / name), _RESTORE)
    return value


def _check_positions(config: dict[str, Any], where: str, max_tokens: int) -> None:
    positions = config.get("max_position_embeddings")
    # vLLM keeps one position for itself; see infer.scoring.vllm_engine.
    if positions is not None and max_tokens >= positions:
        raise InputError(
            f"the model reads at most {positions - 1} tokens, not {max_tokens}", where, "lower max_tokens."
        )


def _weights(folder: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors by name."""
    if (folder / "model.safetensors.index.json").exists():
        weights = _read_json(folder, "model.safetensors.index.json").get("weight_map", {})
        names = sorted(set(weights.values()))
    else:
        names = ["model.safetensors"]
    shapes: dict[str, list[int]] = {}
    for name in names:
        if not (folder / name).exists():
            raise InputError(f"the checkpoint has no {name}", str(folder), _RESTORE)
        shapes |= _shapes(folder / name)
    return shapes


def _shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of a safetensors file's tensors, from its header alone (a length of 8 bytes, then JSON)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length) if length <= path.stat().st_size else b"")
        end = 8 + length + max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise InputError("not a safetensors file", str(path), _RESTORE) from error
    if end != path.stat().st_size:
        raise InputError("the file is cut off", str(path), _RESTORE)
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def _check_vocabulary(folder: Path, config: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError("the checkpoint has no tokenizer.json", str(folder), _RESTORE)
    try:
        highest = max(Tokenizer.from_file(str(path)).get_vocab().values())
    except Exception as error:  # what tokenizers raises is a plain Exception
        raise InputError(f"not a tokenizer: {error}", str(path), _RESTORE) from error
    # An id without an embedding would end the engine, and with it every other request.
    if highest >= config["vocab_size"]:
        raise InputError(
            f"the tokenizer has ids up to {highest}, the model {config['vocab_size']}", str(path), _RESTORE
        )
