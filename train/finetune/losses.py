"""The loss of fine-tuning: votes, a teacher's probabilities, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from train.finetune.settings import FineTuning


def summed_loss(logits: Tensor, labels: Tensor, teacher: Tensor | None, settings: FineTuning) -> Tensor:
    """Sum over sequences of the loss in nats: logits (n, 3), labels (n,), and a teacher's probabilities (n, 3) or None.

    Cross entropy against the votes, smoothed; with a teacher, (1 - w) times that plus w T^2 KL(teacher || model), both
    at temperature T (Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network"). Where the teacher
    has no prediction (nan), the vote alone counts.
    """
    from torch.nn import functional

    votes = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=settings.label_smoothing)
    asked = settings.distillation
    if teacher is None or asked is None:
        return votes.sum()
    taught = ~teacher.isnan().any(dim=1)
    wanted = functional.log_softmax(teacher[taught].clamp_min(1e-9).log() / asked.temperature, dim=1)
    given = functional.log_softmax(logits[taught].float() / asked.temperature, dim=1)
    apart = functional.kl_div(given, wanted, reduction="sum", log_target=True) * asked.temperature**2
    return votes[~taught].sum() + (1 - asked.weight) * votes[taught].sum() + asked.weight * apart
