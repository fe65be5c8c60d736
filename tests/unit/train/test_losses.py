import math

import pytest
import torch

from train.finetune.losses import summed_loss
from train.finetune.settings import Distillation, FineTuning

LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
LABELS = torch.tensor([0, 2])
TEACHER = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])


def log_softmax(row, temperature=1.0):
    scaled = [value / temperature for value in row.tolist()]
    total = math.log(sum(map(math.exp, scaled)))
    return [value - total for value in scaled]


def settings(**changes):
    return FineTuning(stages=(), **changes)


def test_votes_alone_are_smoothed_cross_entropy():
    smoothing = 0.02
    expected = 0.0
    for row, label in zip(LOGITS, LABELS, strict=True):
        logs = log_softmax(row)
        expected -= (1 - smoothing) * logs[label] + smoothing * sum(logs) / 3
    found = summed_loss(LOGITS, LABELS, None, settings(label_smoothing=smoothing))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_teacher_is_mixed_in_by_its_weight(temperature):
    expected = 0.0
    for row, label, wanted in zip(LOGITS, LABELS, TEACHER, strict=True):
        goal = log_softmax(wanted.log(), temperature)
        given = log_softmax(row, temperature)
        apart = sum(math.exp(g) * (g - s) for g, s in zip(goal, given, strict=True))
        expected += 0.75 * -log_softmax(row)[label] + 0.25 * temperature**2 * apart
    found = summed_loss(LOGITS, LABELS, TEACHER, settings(distillation=Distillation(0.25, temperature)))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_teacher_that_is_certain_gives_a_finite_loss():
    certain = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.isfinite(summed_loss(LOGITS, LABELS, certain, settings(distillation=Distillation(1.0))))


def test_where_the_teacher_has_no_prediction_the_vote_alone_counts():
    asked = settings(distillation=Distillation(0.25, 2.0))
    some = torch.stack([TEACHER[0], torch.full((3,), math.nan)])
    logits = LOGITS.clone().requires_grad_()
    found = summed_loss(logits, LABELS, some, asked)
    expected = summed_loss(LOGITS[:1], LABELS[:1], TEACHER[:1], asked)
    expected = expected + summed_loss(LOGITS[1:], LABELS[1:], None, asked)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    none = summed_loss(LOGITS, LABELS, torch.full((2, 3), math.nan), asked)
    assert float(none) == pytest.approx(float(summed_loss(LOGITS, LABELS, None, asked)), abs=1e-6)
