"""Single steps of the training loop, without Ray Train."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import InputError
from tests.helpers.tiny_models import MAX_TOKENS, tiny_model, token_data
from train.finetune.fold_trainer import Storage, _fit
from train.finetune.loop import _Clock, _Worker
from train.finetune.networks import load_network, set_trained
from train.finetune.optimizer import new_optimizer
from train.finetune.settings import FineTuning, TrainingStage
from train.finetune.task import FoldTask

STAGE = TrainingStage("all", 3, 1e-3)
SETTINGS = FineTuning(stages=(STAGE,), records_per_step=6, tokens_per_batch=4 * MAX_TOKENS, seed=1)


class NoStore:
    """A store of nothing but the model to start from."""

    def __init__(self, base):
        self._base = base

    def base(self):
        return self._base


@pytest.fixture(scope="module")
def task(ray_cluster, tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("model"), "deberta-v2")
    data = token_data(folder, "deberta-v2", rows=30)
    # Of one record a step has a micro-batch of its own, with fewer tokens than three of the others have.
    data = dataclasses.replace(data, lengths=np.where(np.arange(30) == 0, MAX_TOKENS + 1, 64))
    store: Any = NoStore(str(folder))
    return FoldTask(1, "encoder", "right", max_tokens=MAX_TOKENS, data=data, settings=SETTINGS, store=store)


@pytest.fixture
def worker(task):
    """The only worker, with its model loaded and everything in it trained."""
    made = _Worker(task, 0, 1)
    made._model = load_network(task.store.base(), SETTINGS)
    made._pad = 0
    return made, set_trained(made._model, "all", lora=False)


def test_the_largest_micro_batches_are_tried_and_nothing_is_kept(worker, monkeypatch):
    made, parameters = worker
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    tried, real = [], made._loss

    def loss(pairs):
        tried.append(pairs)
        assert all(parameter.grad is not None for parameter in parameters.values()), "as from the second one on"
        return real(pairs)

    monkeypatch.setattr(made, "_loss", loss)
    made._rehearse(0, STAGE, parameters)
    lengths = made._task.data.lengths
    sizes = [len(batch) * lengths[made._train[batch]].max() * 2 for epoch in range(3) for step in made._plan(0, epoch)
             for batch in step.micro_batches]  # fmt: skip
    assert max(len(pairs) * max(lengths[record] for record, _ in pairs) for pairs in tried) == max(sizes)
    assert max(lengths[record] for record, _ in tried[1]) == lengths[made._train].max()
    assert all(parameter.grad is None for parameter in parameters.values())
    torch.testing.assert_close(before, dict(parameters))


def test_what_does_not_fit_into_memory_names_the_setting(worker, monkeypatch):
    made, parameters = worker

    def loss(pairs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(made, "_loss", loss)
    with pytest.raises(InputError, match="do not fit into the GPU's memory") as caught:
        made._rehearse(0, STAGE, parameters)
    assert caught.value.where == "tokens_per_batch"


@pytest.mark.parametrize("loss_too", [True, False])
def test_a_training_that_diverged_ends_before_its_numbers_are_kept(worker, monkeypatch, loss_too):
    made, parameters = worker
    made._clock = _Clock(left=0)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def sum_gradients(values, loss):
        values[0].grad[0] = math.nan
        return math.nan if loss_too else loss

    monkeypatch.setattr(made, "_sum_gradients", sum_gradients)
    with pytest.raises(InputError, match=r"diverged.* step 1 of stage 1"):
        made._epoch(0, STAGE, 0, parameters, new_optimizer(parameters, STAGE))
    torch.testing.assert_close(before, dict(parameters))


def test_a_fold_that_is_finished_is_not_trained_again(task):
    """Its worker may be lost behind the manifest; Ray Train would be asked for a storage that is none."""

    class Finished(NoStore):
        def finished(self):
            return True

    storage: Storage = (None, "")
    _fit(dataclasses.replace(task, store=Finished("")), storage)


def test_what_the_head_alone_sees_is_worked_out_once(task, monkeypatch):
    asked = dataclasses.replace(SETTINGS, head="answers")
    made = _Worker(dataclasses.replace(task, settings=asked), 0, 1)
    made._model, made._pad = load_network(task.store.base(), asked), 0
    head = TrainingStage("head", 1, 1e-3)
    set_trained(made._model, "head", lora=False)
    for weights in (made._model.score.weight, made._model.tie.weight):
        torch.nn.init.normal_(weights)
    asked_for: list[Any] = []
    real = made._forward

    def forward(pairs, model):
        asked_for.append(pairs)
        return real(pairs, model)

    monkeypatch.setattr(made, "_forward", forward)
    made._keep_pooled(head)
    made._set_modes(head)
    made._model.dropout.eval()
    first = made._logits([(0, False), (1, True)])
    first.sum().backward()
    again = made._logits([(1, True), (2, False), (0, False)])
    assert asked_for == [[(0, False), (1, True)], [(2, False)]]
    torch.testing.assert_close(again[[2, 0]], first)
    assert made._model.score.weight.grad is not None
    made._keep_pooled(STAGE)
    torch.testing.assert_close(made._logits([(0, False), (1, True)]), first, atol=1e-5, rtol=1e-5)
    assert len(asked_for) == 3
    assert first.std() > 0.1
