"""Score probabilities (n, k) against votes (n,): log loss, accuracy, calibration error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Labels, Probabilities

# scikit-learn's log_loss and Kaggle's metric clip at the float's machine epsilon.
EPSILON = float(np.finfo(np.float64).eps)


def record_log_loss(probabilities: Probabilities, labels: Labels) -> Doubles:
    """Return the log loss (n,) of each row in nats: -ln of the probability (n, k) of its label (n,)."""
    of_label = probabilities[np.arange(len(labels)), labels]
    losses: Doubles = -np.log(np.clip(of_label, EPSILON, 1.0))
    return losses


def log_loss(probabilities: Probabilities, labels: Labels, weights: Doubles | None = None) -> float:
    """Return the mean log loss in nats per vote; `weights` (n,) are the votes of each row, 1 if not given."""
    return float(np.average(record_log_loss(probabilities, labels), weights=weights))


def vote_log_loss(probabilities: Probabilities, votes: Doubles) -> float:
    """Return the mean log loss in nats per vote, of vote counts (n, k)."""
    rows, labels = np.nonzero(votes)
    return log_loss(probabilities[rows], labels.astype(np.int8), votes[rows, labels])


def accuracy(probabilities: Probabilities, labels: Labels, weights: Doubles | None = None) -> float:
    """Return the share of votes that the most probable class gets."""
    return float(np.average(probabilities.argmax(axis=1) == labels, weights=weights))


def expected_calibration_error(
    probabilities: Probabilities, labels: Labels, weights: Doubles | None = None, bins: int = 15
) -> float:
    """Return the calibration error of the most probable class, in bins of equal width.

    It is the mean over votes of |accuracy - confidence| of the record's confidence bin. The default of 15 bins is
    the paper's (Guo et al. 2017, "On Calibration of Modern Neural Networks").
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    votes = np.ones(len(labels)) if weights is None else weights
    gaps = np.bincount(bin_of, weights=(correct - confidence) * votes, minlength=bins)
    return float(np.abs(gaps).sum() / votes.sum())
