"""The loss of fine-tuning: votes, a teacher's probabilities, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from core.settings.finetune import FinetunedModel


def summed_loss(logits: Tensor, counts: Tensor, teacher: Tensor | None, settings: FinetunedModel) -> Tensor:
    """Return the sum over sequences of the loss in nats.

    Logits and vote counts are (n, k), a teacher's probabilities (n, k) or None. The loss of a record is the smoothed
    cross entropy against the shares of its votes, times their number: the sum over votes. With a teacher of weight w it
    is (1 - w) times that plus w T^2 KL(teacher || model). Both are at temperature T (Hinton, Vinyals and Dean 2015,
    "Distilling the Knowledge in a Neural Network"). If the teacher has no prediction for a record (nan), only the votes
    are used.
    """
    from torch.nn import functional

    weights = counts.sum(dim=1)
    best, labels = counts.max(dim=1)
    hard = bool((best == weights).all())  # one outcome each: its label is the target
    goals = labels if hard else counts / weights[:, None]
    votes = functional.cross_entropy(logits.float(), goals, reduction="none", label_smoothing=settings.label_smoothing)
    votes = votes * weights
    source = settings.teacher
    if teacher is None or source is None:
        return votes.sum()
    has_teacher = ~teacher.isnan().any(dim=1)
    goal = functional.log_softmax(teacher[has_teacher].clamp_min(1e-9).log() / source.temperature, dim=1)
    student = functional.log_softmax(logits[has_teacher].float() / source.temperature, dim=1)
    divergences = functional.kl_div(student, goal, reduction="none", log_target=True) * weights[has_teacher, None]
    divergence = divergences.sum() * source.temperature**2
    return votes[~has_teacher].sum() + (1 - source.weight) * votes[has_teacher].sum() + source.weight * divergence
