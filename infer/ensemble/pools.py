"""Pool the predictions of several models into one.

A model may lack single records: their rows are nan. Such a record is pooled from the models that predict it. Their
weights are scaled so that the total stays the total over all models. Weights are learned by the same rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from core.arrays import Doubles, Mask, Probabilities

PoolName = Literal["linear", "log"]
# Kaggle's metric and scikit-learn's clip at about 2e-16; a float32 softmax gives an exact 0 long before.
_FLOOR = 1e-7


def prediction_mask(predictions: Probabilities) -> Mask:
    """Return which models predict which records (models, n), from predictions (models, n, k) with nan rows."""
    return np.asarray(~np.isnan(predictions).any(axis=2))


def silence_judges(predictions: Probabilities, models: Sequence[str], judges: Collection[str]) -> Probabilities:
    """Return predictions (models, n, k), equal ones where a judge gave no verdict but another model predicts.

    Verdicts are evidence that adds up. With the weight of a missing one on the others, the log pool is far too sure.
    """
    silent = np.isnan(predictions).any(axis=2) & np.isin(models, list(judges))[:, None]
    silent &= prediction_mask(predictions).any(axis=0)
    if not silent.any():
        return predictions
    return np.where(silent[:, :, None], 1 / predictions.shape[2], predictions)


def record_weights(weights: Doubles, present: Mask) -> Doubles:
    """Return weights (models, n) of each record: present models' weights, scaled to the total of all models.

    If the present models all have weight 0, they share the total equally. Raises ValueError if a record has no model.
    """
    if not present.any(axis=0).all():
        raise ValueError(f"no model predicts {(~present.any(axis=0)).sum()} of {present.shape[1]} records")
    if present.all():
        return np.broadcast_to(weights[:, None], present.shape)
    shares = np.where(weights @ present > 0, weights[:, None], 1.0) * present
    scaled: Doubles = weights.sum() * shares / shares.sum(axis=0)
    return scaled


def pool_predictions(name: PoolName, predictions: Probabilities, weights: Doubles) -> Probabilities:
    """Return the models' probabilities (models, n, k) pooled to (n, k)."""
    return log_pool(predictions, weights) if name == "log" else linear_pool(predictions, weights)


def linear_pool(predictions: Probabilities, weights: Doubles) -> Probabilities:
    """Return the weighted mean (n, k) of the models' probabilities (models, n, k); weights (models,) sum to 1."""
    present = prediction_mask(predictions)
    filled = np.where(present[:, :, None], predictions, 0.0)
    return clip_to_simplex(_weighted_sum(record_weights(weights, present), filled))


def log_pool(predictions: Probabilities, weights: Doubles) -> Probabilities:
    """Return the geometric mean (n, k) of probabilities (models, n, k), each to the power of its weight (models,).

    Weights that sum to more than 1 sharpen the prediction, and less than 1 flatten it. So this pool calibrates as it
    combines (Genest and Zidek 1986).
    """
    present = prediction_mask(predictions)
    return log_pool_from_logs(log_probabilities(predictions, present), present, weights)


def log_probabilities(predictions: Probabilities, present: Mask) -> Doubles:
    """Return logarithms (models, n, k) of probabilities, 0 where a model lacks a record."""
    logs: Doubles = np.log(np.maximum(np.where(present[:, :, None], predictions, 1.0), _FLOOR))
    return logs


def log_pool_from_logs(logs: Doubles, present: Mask, weights: Doubles) -> Probabilities:
    """Return the log pool (n, k) of the models' logarithms (models, n, k)."""
    return clip_to_simplex(softmax(_weighted_sum(record_weights(weights, present), logs)))


def _weighted_sum(weights: Doubles, values: Doubles) -> Doubles:
    """Return the sum (n, k) of values (models, n, k) with weights (models, n)."""
    # Elementwise, not einsum: its vector lanes would round P(A) and P(B) differently.
    total: Doubles = (weights[:, :, None] * values).sum(axis=0)
    return total


def sum_over_outcomes(values: Doubles) -> Doubles:
    """Return sums (...) over the outcomes (..., k), the same to the last bit if A and B are exchanged."""
    total: Doubles = values[..., 0] + values[..., 1]
    for column in range(2, values.shape[-1]):
        total = total + values[..., column]
    return total


def softmax(scores: Doubles) -> Probabilities:
    """Return probabilities (n, k) whose logarithms are the scores (n, k) up to a constant of each row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Probabilities = powers / sum_over_outcomes(powers)[:, None]
    return shares


def clip_to_simplex(probabilities: Probabilities) -> Probabilities:
    """Return probabilities (n, k) moved off 0 and 1 by at most 1e-7, with sums of 1."""
    clipped = np.maximum(probabilities, _FLOOR)
    rescaled: Probabilities = clipped / sum_over_outcomes(clipped)[:, None]
    return rescaled
