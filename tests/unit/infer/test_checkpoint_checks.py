import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from core.errors import InputError
from featurize.tokens.packing import packing_settings
from infer.scoring import checkpoint_checks
from infer.scoring.checkpoint_checks import check_checkpoint


def write_weights(path: Path, head: list[int] | None) -> None:
    shapes = {"model.norm.weight": [4]} | ({"score.weight": head} if head else {})
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def change(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "A", "1": "B", "2": "tie"},
        "vocab_size": 2,
        "max_position_embeddings": 1024,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "packing.json").write_text(json.dumps(packing_settings(512)))
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    write_weights(tmp_path / "model.safetensors", [3, 4])
    check_checkpoint(str(tmp_path), 512)
    return tmp_path


BREAKS: list[tuple[str, Callable[[Path], object]]] = [
    ("no config.json", lambda folder: (folder / "config.json").unlink()),
    ("not valid JSON", lambda folder: (folder / "config.json").write_text("{")),
    ("not a JSON object", lambda folder: (folder / "config.json").write_text("[]")),
    ("LlamaForCausalLM", lambda folder: change(folder, architectures=["LlamaForCausalLM"])),
    ("has 2 classes", lambda folder: change(folder, id2label=None)),
    ("at most 511 tokens", lambda folder: change(folder, max_position_embeddings=512)),
    ("no model.safetensors", lambda folder: (folder / "model.safetensors").unlink()),
    ("not a safetensors file", lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 20)),
    ("cut off", lambda folder: cut_off(folder / "model.safetensors")),
    ("no trained head", lambda folder: write_weights(folder / "model.safetensors", None)),
    ("score.weight has 2 rows", lambda folder: write_weights(folder / "model.safetensors", [2, 4])),
    (
        "no model-00002.safetensors",
        lambda folder: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"score.weight": "model-00002.safetensors"}})
        ),
    ),
    ("no tokenizer.json", lambda folder: (folder / "tokenizer.json").unlink()),
    ("not a tokenizer", lambda folder: (folder / "tokenizer.json").write_text("{}")),
    ("ids up to 1", lambda folder: change(folder, vocab_size=1)),
    ("no packing.json", lambda folder: (folder / "packing.json").unlink()),
    (
        "max_tokens is 256 there",
        lambda folder: (folder / "packing.json").write_text(json.dumps(packing_settings(256))),
    ),
]


@pytest.mark.parametrize(("reason", "damage"), BREAKS, ids=[reason for reason, _ in BREAKS])
def test_a_checkpoint_that_cannot_score_is_refused_with_the_reason(
    checkpoint: Path, reason: str, damage: Callable[[Path], object]
) -> None:
    damage(checkpoint)
    with pytest.raises(InputError, match=reason) as error:
        check_checkpoint(str(checkpoint), 512)
    assert str(checkpoint) in error.value.where
    assert error.value.fix


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "runs/one/model", "model"])
def test_a_folder_that_is_not_there_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(InputError, match="no such folder"):
        check_checkpoint(name, 512)


def test_a_head_on_the_hub_has_to_say_how_it_read_records(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    monkeypatch.setattr(checkpoint_checks, "_hub_config", lambda name: config)

    def fetched(name: str, file: str) -> str:
        if not (checkpoint / file).exists():
            raise OSError(f"{name} has no {file}")
        return str(checkpoint / file)

    monkeypatch.setattr("transformers.utils.cached_file", fetched)
    check_checkpoint("owner/model", 512)
    with pytest.raises(InputError, match="packed differently: max_tokens is 512 there and 256 here"):
        check_checkpoint("owner/model", 256)
    (checkpoint / "packing.json").unlink()
    with pytest.raises(InputError, match=r"no packing\.json for it, .*owner/model has no"):
        check_checkpoint("owner/model", 512)
