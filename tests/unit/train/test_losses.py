import math

import pytest
import torch

from core.settings.finetune import Teacher
from tests.helpers.tiny_models import encoder_settings
from train.finetune.losses import summed_loss

LOGITS = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
LABELS = torch.tensor([0, 2])
VOTES = torch.nn.functional.one_hot(LABELS, 3).float()
TEACHER = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])


def log_softmax(row, temperature=1.0):
    scaled = [value / temperature for value in row.tolist()]
    total = math.log(sum(map(math.exp, scaled)))
    return [value - total for value in scaled]


def taught(weight, temperature=1.0):
    return encoder_settings(teacher=Teacher(model="teacher", weight=weight, temperature=temperature))


def test_votes_alone_are_smoothed_cross_entropy():
    smoothing = 0.02
    expected = 0.0
    for row, label in zip(LOGITS, LABELS, strict=True):
        logs = log_softmax(row)
        expected -= (1 - smoothing) * logs[label] + smoothing * sum(logs) / 3
    loss = summed_loss(LOGITS, VOTES, None, encoder_settings(label_smoothing=smoothing))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_teacher_is_mixed_in_by_its_weight(temperature):
    expected = 0.0
    for row, label, soft in zip(LOGITS, LABELS, TEACHER, strict=True):
        goal = log_softmax(soft.log(), temperature)
        student = log_softmax(row, temperature)
        divergence = sum(math.exp(g) * (g - s) for g, s in zip(goal, student, strict=True))
        expected += 0.75 * -log_softmax(row)[label] + 0.25 * temperature**2 * divergence
    loss = summed_loss(LOGITS, VOTES, TEACHER, taught(0.25, temperature))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_a_teacher_that_is_certain_gives_a_finite_loss():
    certain = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.isfinite(summed_loss(LOGITS, VOTES, certain, taught(1.0)))


def test_where_the_teacher_has_no_prediction_the_vote_alone_counts():
    settings = taught(0.25, 2.0)
    some = torch.stack([TEACHER[0], torch.full((3,), math.nan)])
    logits = LOGITS.clone().requires_grad_()
    loss = summed_loss(logits, VOTES, some, settings)
    expected = summed_loss(LOGITS[:1], VOTES[:1], TEACHER[:1], settings)
    expected = expected + summed_loss(LOGITS[1:], VOTES[1:], None, settings)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    none = summed_loss(LOGITS, VOTES, torch.full((2, 3), math.nan), settings)
    assert float(none) == pytest.approx(float(summed_loss(LOGITS, VOTES, None, settings)), abs=1e-6)


def test_several_votes_are_a_soft_target_and_each_of_them_counts():
    counts = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    logs = [log_softmax(row) for row in LOGITS]
    expected = -(2 * logs[0][0] + logs[0][1]) - 3 * logs[1][2]
    loss = summed_loss(LOGITS, counts, None, encoder_settings(label_smoothing=0.0))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_votes_and_teacher_weigh_alike():
    settings = taught(0.25)
    double = summed_loss(LOGITS, 2 * VOTES, TEACHER, settings)
    assert float(double) == pytest.approx(2 * float(summed_loss(LOGITS, VOTES, TEACHER, settings)), rel=1e-6)
