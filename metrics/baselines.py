"""Baselines: uniform, class prior, and length only, which a model has to beat to have read anything."""

import numpy as np
import numpy.typing as npt

from metrics.bradley_terry import normalised_difference

Floats = npt.NDArray[np.float64]

_RIDGE = 1e-3  # bounds the weights where few votes are separable
_STEPS = 50


def uniform(count: int) -> Floats:
    """The prediction (count, 3) of someone who knows nothing."""
    return np.full((count, 3), 1 / 3)


def class_prior(labels: npt.NDArray[np.int8], folds: npt.NDArray[np.int16]) -> Floats:
    """Out-of-fold class shares (n, 3): each record gets those of the other folds, with one vote added to each class."""
    prior = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        counts = np.bincount(labels[folds != fold], minlength=3) + 1.0
        prior[folds == fold] = counts / counts.sum()
    return prior


def length_only(
    lengths_a: Floats, lengths_b: Floats, labels: npt.NDArray[np.int8], folds: npt.NDArray[np.int16]
) -> Floats:
    """Out-of-fold probabilities (n, 3) of a logistic regression on x = (a - b) / (a + b) of the answers' lengths (n,).

    Its scores for A, B and tie are beta x, -beta x and gamma + delta |x|, so that exchanging the answers exchanges
    their probabilities. Each fold's three weights are fitted to the votes of the others.
    """
    x = normalised_difference(lengths_a, lengths_b)
    zero, one = np.zeros_like(x), np.ones_like(x)
    design = np.stack(
        [np.stack(row, axis=1) for row in ((x, zero, zero), (-x, zero, zero), (zero, one, np.abs(x)))], axis=1
    )  # (n, class, weight)
    predicted = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        held_out = folds == fold
        predicted[held_out] = _softmax(design[held_out] @ _fit(design[~held_out], labels[~held_out]))
    return predicted


def _fit(design: Floats, labels: npt.NDArray[np.int8]) -> Floats:
    """Weights (3,) of the conditional logit with `design` (n, 3 classes, 3), by Newton's method: its loss is convex."""
    weights = np.zeros(design.shape[2])
    chosen = design[np.arange(len(labels)), labels].sum(axis=0)
    for _ in range(_STEPS):
        chances = _softmax(design @ weights)
        means = np.einsum("nc,ncw->nw", chances, design)
        gradient = chosen - means.sum(axis=0) - _RIDGE * weights
        squares = np.einsum("nc,ncw,ncv->wv", chances, design, design) - means.T @ means
        step = np.linalg.solve(squares + _RIDGE * np.eye(len(weights)), gradient)
        weights += step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: Floats = powers / powers.sum(axis=1, keepdims=True)
    return chances
