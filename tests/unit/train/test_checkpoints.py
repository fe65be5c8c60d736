import json
import struct

import numpy as np
import pytest
import torch

from core.model_cache import CheckpointRef
from core.stage import Stage
from core.storage import Folder
from train.finetune.checkpoints import RunFoldStore
from train.finetune.task import TrainingState


@pytest.fixture
def store(tmp_path):
    stage = Stage("train_encoder/e/fold-1", Folder(str(tmp_path / "fold-1")), {"fold": 1}, {"models": "m"})
    return RunFoldStore(
        stage, CheckpointRef("owner/model", "digest"), np.eye(3)[[0, 2]], "records", ["a", "b"], cpus=4, gpus=2
    )


def state(stage, epochs):
    tensors = {"classifier.weight": torch.arange(6.0).reshape(2, 3) + epochs, "bias": torch.tensor([1.5])}
    moments = {"bias|exp_avg": torch.tensor([0.25]), "bias|step": torch.tensor(7.0)}
    point = {"stage": stage, "epoch": epochs - 1, "step": 3, "loss": 1.0, "learning_rate": 1e-3, "tokens": 10}
    point |= {"tokens_per_second": 250.0, "time": 1.7e9}
    return TrainingState(stage, epochs, tensors, moments, [point], 2.5)


def test_a_state_is_restored_and_replaces_the_last_one(store, tmp_path):
    assert store.load() is None
    assert store.progress() is None
    store.save(state(0, 1))
    store.save(state(1, 2))
    loaded = store.load()
    assert (loaded.stage, loaded.epochs) == store.progress() == (1, 2)
    assert loaded.history == state(1, 2).history
    for name in ("parameters", "optimizer"):
        for key, value in getattr(state(1, 2), name).items():
            assert torch.equal(getattr(loaded, name)[key], value)
    files = sorted(path.name for path in (tmp_path / "fold-1/checkpoint").iterdir())
    assert files == ["optimizer-1-2.safetensors", "parameters-1-2.safetensors", "state.json"]


@pytest.mark.parametrize("text", ['{"fingerprint": "of another training", "stage": 0}', '{"fingerp', "[]"])
def test_a_state_of_another_training_or_half_a_state_is_none(store, tmp_path, text):
    store.save(state(0, 1))
    (tmp_path / "fold-1/checkpoint/state.json").write_text(text)
    assert store.load() is None


@pytest.mark.parametrize("name", ["parameters-0-1.safetensors", "optimizer-0-1.safetensors"])
def test_a_state_without_its_tensors_is_none(store, tmp_path, name):
    store.save(state(0, 1))
    (tmp_path / "fold-1/checkpoint" / name).unlink()
    assert store.load() is None
    assert store.progress() is None


def test_files_of_a_finished_fold(store, tmp_path):
    store.save(state(0, 1))
    assert not store.finished()
    model = tmp_path / "trained"
    (model / "adapter").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "adapter/adapter_config.json").write_text("{}")
    probabilities = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    store.finish(model, np.array([1, 4]), probabilities, state(0, 1).history, seconds=2.0)
    assert store.finished()
    manifest = store.stage.manifest()
    assert manifest["metrics"]["log_loss"] == pytest.approx(np.log(2))
    assert set(manifest["files"]) == {
        "model/config.json", "model/adapter/adapter_config.json", "model/training.json", "model/adapter/training.json",
        "out_of_fold.parquet", "history.json", "events.out.tfevents.tiebreak",
    }  # fmt: skip
    trained_on = {"records": "records", "votes": ["a", "b"], "fold": 1}
    for parent in ("model", "model/adapter"):  # adapters are shared without their base
        assert json.loads((tmp_path / f"fold-1/{parent}/training.json").read_text()) == trained_on
    assert not (tmp_path / "fold-1/checkpoint").exists() or not any((tmp_path / "fold-1/checkpoint").iterdir())


def scalars(data):
    """Return an event file's values by tag. A record: length (8 bytes), checksum (4), event, checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    values: dict[str, list[tuple[int, float, float]]] = {}
    start = 0
    while start < len(data):
        (length,) = struct.unpack("<Q", data[start : start + 8])
        event = Event.FromString(data[start + 12 : start + 12 + length])
        start += 16 + length
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    return values


def test_the_curves_are_in_tensorboards_file(store, tmp_path):
    file = tmp_path / "fold-1/events.out.tfevents.tiebreak"
    store.save(state(0, 1))  # while it trains
    after_an_epoch = scalars(file.read_bytes())
    store.finish(tmp_path / "nothing", np.array([1, 4]), np.full((2, 3), 1 / 3), state(0, 1).history, 1.0)
    curves = scalars(file.read_bytes())
    assert curves == after_an_epoch
    assert curves["loss"] == [(0, 1.0, 1.7e9)]
    assert curves["learning_rate"] == [(0, pytest.approx(1e-3), 1.7e9)]
    assert curves["tokens_per_second"] == [(0, 250.0, 1.7e9)]
