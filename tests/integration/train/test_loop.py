"""Single steps of the training loop, without Ray Train."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.settings.finetune import TrainingStage
from tests.helpers.tiny_models import MAX_TOKENS, encoder_settings, tiny_model, token_data
from train.finetune.fold_trainer import StorageLocation, _fit
from train.finetune.loop import StageTraining, TrainingLoop
from train.finetune.networks import freeze_untrained
from train.finetune.optimizer import build_optimizer
from train.finetune.progress import TokenClock
from train.finetune.task import FoldTask

STAGE = TrainingStage(train="all", epochs=3, learning_rate=1e-3)
SETTINGS = encoder_settings(stages=[STAGE], global_batch_size=6, max_tokens_per_microbatch=4 * MAX_TOKENS)


class BaseOnly:
    """A store of nothing but the model to start from."""

    def __init__(self, base):
        self._base = base

    def base(self):
        return self._base


@pytest.fixture(scope="module")
def task(ray_cluster, tmp_path_factory):
    folder = tiny_model(tmp_path_factory.mktemp("model"), "deberta-v2")
    data = token_data(folder, "deberta-v2", rows=30)
    # The longest record is a microbatch of its own, with fewer tokens than three of the others have.
    data = dataclasses.replace(data, lengths=np.where(np.arange(30) == 0, MAX_TOKENS + 1, 64))
    store: Any = BaseOnly(str(folder))
    return FoldTask(1, seed=1, settings=SETTINGS, data=data, store=store)


@pytest.fixture
def training(task):
    """The loop of the only worker, with its model loaded, and a stage that trains all of it."""
    loop = TrainingLoop(task, 0, 1)
    loop._load_network()
    parameters = freeze_untrained(loop._network.model, "all", lora=False)
    return loop, StageTraining(0, STAGE, parameters, build_optimizer(parameters, STAGE))


def test_the_memory_check_runs_the_largest_microbatches_and_keeps_nothing(training, monkeypatch):
    loop, stage = training
    before = {name: parameter.detach().clone() for name, parameter in stage.parameters.items()}
    tried, real = [], loop._network.loss

    def loss(examples):
        tried.append(examples)
        assert all(parameter.grad is not None for parameter in stage.parameters.values()), "as from the second one on"
        return real(examples)

    monkeypatch.setattr(loop._network, "loss", loss)
    loop._check_memory(0, STAGE, stage.parameters)
    lengths = loop._task.data.lengths
    steps = [step for epoch in range(3) for step in loop._sampler.steps(0, epoch)]
    sizes = [len(batch) * lengths[loop._records[batch]].max() * 2 for step in steps for batch in step.microbatches]
    assert max(len(examples) * max(lengths[record] for record, _ in examples) for examples in tried) == max(sizes)
    assert max(lengths[record] for record, _ in tried[1]) == lengths[loop._records].max()
    assert all(parameter.grad is None for parameter in stage.parameters.values())
    torch.testing.assert_close(before, dict(stage.parameters))


def test_a_lack_of_memory_names_the_setting(training, monkeypatch):
    loop, stage = training

    def loss(examples):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop._network, "loss", loss)
    with pytest.raises(InputError, match="do not fit into the GPU's memory") as caught:
        loop._check_memory(0, STAGE, stage.parameters)
    assert caught.value.where == "max_tokens_per_microbatch"


@pytest.mark.parametrize("loss_too", [True, False])
def test_a_training_that_diverged_ends_before_its_parameters_are_kept(training, monkeypatch, loss_too):
    loop, stage = training
    loop._clock = TokenClock(tokens_left=0)
    before = {name: parameter.detach().clone() for name, parameter in stage.parameters.items()}
    real = loop._backward

    def backward(*arguments):
        loss = real(*arguments)
        next(iter(stage.parameters.values())).grad[0] = math.nan
        return math.nan if loss_too else loss

    monkeypatch.setattr(loop, "_backward", backward)
    with pytest.raises(InputError, match=r"diverged.* step 1 of stage 1"):
        loop._train_epoch(stage, 0)
    torch.testing.assert_close(before, dict(stage.parameters))


def test_a_fold_that_is_finished_is_not_trained_again(task):
    """A worker may be lost after the manifest is written. Ray Train would reject the storage given here."""

    class Finished(BaseOnly):
        def finished(self):
            return True

    storage: StorageLocation = (None, "")
    _fit(dataclasses.replace(task, store=Finished("")), storage)


def test_pooled_states_are_computed_once_while_the_head_alone_is_trained(task, monkeypatch):
    head = TrainingStage(train="head", epochs=1, learning_rate=1e-3)
    settings = encoder_settings(stages=[head], head="answers")
    loop = TrainingLoop(dataclasses.replace(task, settings=settings), 0, 1)
    loop._load_network()
    network, model = loop._network, loop._network.model
    freeze_untrained(model, "head", lora=False)
    for weights in (model.score.weight, model.tie.weight):
        torch.nn.init.normal_(weights)
    computed: list[Any] = []
    real = network._forward

    def forward(examples, module):
        computed.append(examples)
        return real(examples, module)

    monkeypatch.setattr(network, "_forward", forward)
    network.prepare(head)
    network.train_mode(head)
    model.dropout.eval()
    first = network.logits([(0, False), (1, True)])
    first.sum().backward()
    again = network.logits([(1, True), (2, False), (0, False)])
    assert computed == [[(0, False), (1, True)], [(2, False)]]
    torch.testing.assert_close(again[[2, 0]], first)
    assert model.score.weight.grad is not None
    network.prepare(STAGE)
    torch.testing.assert_close(network.logits([(0, False), (1, True)]), first, atol=1e-5, rtol=1e-5)
    assert len(computed) == 3
    assert first.std() > 0.1
