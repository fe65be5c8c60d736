"""Scores of probabilities (n, 3) against votes (n,): log loss, accuracy, calibration error."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
# scikit-learn's log_loss and Kaggle's metric clip at the float's machine epsilon.
EPSILON = float(np.finfo(np.float64).eps)


def record_log_loss(probabilities: Floats, labels: npt.NDArray[np.int8]) -> Floats:
    """Multi-class log loss (n,) of each record in nats: -ln of the probability (n, 3) given to its label (n,)."""
    chosen = probabilities[np.arange(len(labels)), labels]
    losses: Floats = -np.log(np.clip(chosen, EPSILON, 1.0))
    return losses


def log_loss(probabilities: Floats, labels: npt.NDArray[np.int8]) -> float:
    """Mean multi-class log loss in nats."""
    return float(record_log_loss(probabilities, labels).mean())


def accuracy(probabilities: Floats, labels: npt.NDArray[np.int8]) -> float:
    """Share of records whose most probable class is the vote."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def expected_calibration_error(probabilities: Floats, labels: npt.NDArray[np.int8], bins: int = 15) -> float:
    """Top-label calibration error with equal-width bins (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    The mean over records of |accuracy - confidence| of the record's confidence bin; 15 bins as in the paper.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
