"""Score probabilities (n, 3) against votes (n,): log loss, accuracy, calibration error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Labels, Probabilities

# scikit-learn's log_loss and Kaggle's metric clip at the float's machine epsilon.
EPSILON = float(np.finfo(np.float64).eps)


def record_log_loss(probabilities: Probabilities, labels: Labels) -> Doubles:
    """Return the log loss (n,) of each record in nats: -ln of the probability (n, 3) of its label (n,)."""
    of_label = probabilities[np.arange(len(labels)), labels]
    losses: Doubles = -np.log(np.clip(of_label, EPSILON, 1.0))
    return losses


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean log loss in nats per record."""
    return float(record_log_loss(probabilities, labels).mean())


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the share of records whose most probable class is the vote."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = 15) -> float:
    """Return the calibration error of the most probable class, in bins of equal width.

    It is the mean over records of |accuracy - confidence| of the record's confidence bin. The default of 15 bins is
    the paper's (Guo et al. 2017, "On Calibration of Modern Neural Networks").
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
