"""Baselines: uniform, class prior, and length only. A model that does not beat length only may have read nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metrics.differences import normalized_difference

if TYPE_CHECKING:
    from core.arrays import Doubles, Folds, Labels, Probabilities

_RIDGE = 1e-3  # bounds the weights if few votes are separable
_STEPS = 50


def uniform_baseline(count: int) -> Probabilities:
    """Return the prediction (count, 3) that gives each class the same probability."""
    return np.full((count, 3), 1 / 3)


def class_prior_baseline(labels: Labels, folds: Folds) -> Probabilities:
    """Return out-of-fold class shares (n, 3): of the other folds' votes, with one vote added to each class."""
    prior = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        counts = np.bincount(labels[folds != fold], minlength=3) + 1.0
        prior[folds == fold] = counts / counts.sum()
    return prior


def length_baseline(lengths_a: Doubles, lengths_b: Doubles, labels: Labels, folds: Folds) -> Probabilities:
    """Return out-of-fold probabilities (n, 3) of a logistic regression on the lengths (n,) of the answers.

    With x = (a - b) / (a + b), the scores of A, B and tie are beta x, -beta x and gamma + delta |x|. So swapping the
    answers swaps their probabilities. The three weights of a fold are fitted to the votes of the other folds.
    """
    x = normalized_difference(lengths_a, lengths_b)
    zero, one = np.zeros_like(x), np.ones_like(x)
    design = np.stack(
        [np.stack(row, axis=1) for row in ((x, zero, zero), (-x, zero, zero), (zero, one, np.abs(x)))], axis=1
    )  # (n, class, weight)
    predicted = np.empty((len(labels), 3))
    for fold in np.unique(folds):
        held_out = folds == fold
        predicted[held_out] = _softmax(design[held_out] @ _fit(design[~held_out], labels[~held_out]))
    return predicted


def _fit(design: Doubles, labels: Labels) -> Doubles:
    """Return the weights (3,) of a conditional logit with `design` (n, 3 classes, 3). Newton's method: it is convex."""
    weights = np.zeros(design.shape[2])
    observed = design[np.arange(len(labels)), labels].sum(axis=0)
    for _ in range(_STEPS):
        chances = _softmax(design @ weights)
        means = np.einsum("nc,ncw->nw", chances, design)
        gradient = observed - means.sum(axis=0) - _RIDGE * weights
        squares = np.einsum("nc,ncw,ncv->wv", chances, design, design) - means.T @ means
        step = np.linalg.solve(squares + _RIDGE * np.eye(len(weights)), gradient)
        weights += step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _softmax(scores: Doubles) -> Probabilities:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return chances
