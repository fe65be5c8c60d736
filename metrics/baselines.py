"""Baselines: uniform, class prior, and length only. A model that does not beat length only may have read nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metrics.differences import normalized_difference

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities
    from votes.arrays import Votes

_RIDGE = 1e-3  # bounds the weights if few votes are separable
_STEPS = 50


def uniform_baseline(count: int, classes: int = 3) -> Probabilities:
    """Return the prediction (count, k) that gives each class the same probability."""
    return np.full((count, classes), 1 / classes)


def class_prior_baseline(votes: Votes) -> Probabilities:
    """Return out-of-fold class shares (m, k): of the other folds' votes, with one vote added to each class."""
    prior = np.empty((len(votes), votes.classes))
    for fold in np.unique(votes.folds):
        others = votes.folds != fold
        counts = np.bincount(votes.labels[others], votes.weights[others], votes.classes) + 1.0
        prior[votes.folds == fold] = counts / counts.sum()
    return prior


def length_baseline(lengths_a: Doubles, lengths_b: Doubles, votes: Votes) -> Probabilities:
    """Return out-of-fold probabilities (m, k) of a logistic regression on the lengths (m,) of the answers.

    With x = (a - b) / (a + b), the scores of A and B are beta x and -beta x, those of a tie and of both bad are
    gamma + delta |x|, each with weights of its own. So swapping the answers swaps their probabilities. The weights of a
    fold are fitted to the votes of the other folds.
    """
    x = normalized_difference(lengths_a, lengths_b)
    design = np.zeros((len(x), votes.classes, 1 + 2 * (votes.classes - 2)))  # (m, class, weight)
    design[:, 0, 0], design[:, 1, 0] = x, -x
    for n in range(2, votes.classes):
        design[:, n, 2 * n - 3], design[:, n, 2 * n - 2] = 1.0, np.abs(x)
    predicted = np.empty((len(votes), votes.classes))
    for fold in np.unique(votes.folds):
        held_out = votes.folds == fold
        predicted[held_out] = _softmax(design[held_out] @ _fit(design[~held_out], votes.take(~held_out)))
    return predicted


def _fit(design: Doubles, votes: Votes) -> Doubles:
    """Return the weights (w,) of a conditional logit with `design` (m, k, w). Newton's method: it is convex."""
    weights, share = np.zeros(design.shape[2]), votes.weights[:, None]
    observed = (design[np.arange(len(votes)), votes.labels] * share).sum(axis=0)
    for _ in range(_STEPS):
        chances = _softmax(design @ weights)
        means = np.einsum("nc,ncw->nw", chances, design)
        gradient = observed - (means * share).sum(axis=0) - _RIDGE * weights
        squares = np.einsum("nc,ncw,ncv->wv", chances * share, design, design) - (means * share).T @ means
        step = np.linalg.solve(squares + _RIDGE * np.eye(len(weights)), gradient)
        weights += step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _softmax(scores: Doubles) -> Probabilities:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances: Probabilities = powers / powers.sum(axis=1, keepdims=True)
    return chances
