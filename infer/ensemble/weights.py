"""Learn the weights of a pool from out-of-fold predictions.

Predictions must be out-of-fold. Otherwise the weights reward models for what they memorized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer.ensemble.pools import (
    log_pool_from_logs,
    log_probabilities,
    prediction_mask,
    record_weights,
    sum_over_outcomes,
)
from metrics.scores import EPSILON, record_log_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from core.arrays import Doubles, Labels, Mask, Probabilities
    from votes.arrays import Votes

    LearnWeights = Callable[[Probabilities, Votes], Doubles]
    PoolFunction = Callable[[Probabilities, Doubles], Probabilities]


def _label_probabilities(predictions: Probabilities, labels: Labels, present: Mask) -> Doubles:
    """Return the probability that each model gives to each vote (models, n); 0 where the model lacks the record."""
    return np.where(present, predictions[:, np.arange(len(labels)), labels], 0.0)


def learn_linear_weights(predictions: Probabilities, votes: Votes) -> Doubles:
    """Return weights (models,) on the simplex with the least log loss of the linear pool (models, n, k).

    If every model predicts every record the loss is convex, so SLSQP finds the optimum from equal weights. With nan
    rows it is nearly convex. If SLSQP stops early, greedy weights are returned.
    """
    from scipy.optimize import minimize

    models = len(predictions)
    if models == 1:
        return np.ones(1)
    present = prediction_mask(predictions)
    of_label = _label_probabilities(predictions, votes.labels, present)
    total_votes = votes.weights.sum()

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        # A ratio, so that it holds for records that lack models, whatever the weights sum to between steps.
        scaled = record_weights(weights, present)
        pooled, total = (scaled * of_label).sum(axis=0), scaled.sum(axis=0)
        mixed = np.clip(pooled / total, EPSILON, None)
        share = weights @ present
        weighted = share > 0
        slopes = of_label[:, weighted] / (mixed * share)[weighted] - present[:, weighted] / share[weighted]
        gradient: Doubles = -(slopes * votes.weights[weighted]).sum(axis=1) / total_votes
        return float(votes.mean(-np.log(mixed))), gradient

    optimum = minimize(
        loss,
        np.full(models, 1 / models),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * models,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda _: np.ones(models)},
        options={"maxiter": 500, "ftol": 1e-10},
    )
    weights = np.clip(optimum.x, 0.0, None)
    normalized: Doubles = weights / weights.sum()
    # SLSQP also reports failure at the optimum itself, where steps of rounding size lower nothing.
    if optimum.success or loss(normalized)[0] <= loss(greedy := greedy_weights(predictions, votes))[0]:
        return normalized
    return greedy


def learn_log_weights(predictions: Probabilities, votes: Votes) -> Doubles:
    """Return weights (models,) of at least 0 with the least log loss of the log pool (models, n, k).

    If every model predicts every record the loss is convex. It equals that of a multinomial logistic regression on
    log-probabilities.
    """
    from scipy.optimize import minimize

    models = len(predictions)
    present = prediction_mask(predictions)
    logs = log_probabilities(predictions, present)
    rows, labels, share_of_row = np.arange(len(votes)), votes.labels, votes.weights / votes.weights.mean()
    one_hot = votes.shares

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        pooled = log_pool_from_logs(logs, present, weights)
        errors = pooled - one_hot
        pulls = sum_over_outcomes(errors * logs)
        share = weights @ present
        # The scores of a record are total / share * (weights @ logs): the total moves with every weight, too.
        scale = np.divide(weights.sum(), share, out=np.ones_like(share), where=share > 0)
        mean = np.divide(weights @ pulls, share, out=np.zeros_like(share), where=share > 0)
        gradient: Doubles = ((pulls * scale + mean * (1 - scale * present)) * share_of_row).mean(axis=1)
        return float(votes.mean(-np.log(pooled[rows, labels]))), gradient

    optimum = minimize(loss, np.full(models, 1 / models), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * models)
    weights: Doubles = np.asarray(optimum.x)
    return weights


def drop_idle_models(learn: LearnWeights, pool: PoolFunction, predictions: Probabilities, votes: Votes) -> Doubles:
    """Return the weights (models,) that `learn` finds, with 0 for models whose weight may be chance.

    A useless model gets a weight of about one standard error, which looks like a contribution. So models with less than
    a fifth of the weight are candidates, the smallest first. A model is dropped if this costs less log-likelihood than
    half the logarithm of the number of votes, in nats. This is the Bayesian information criterion (Schwarz 1978). With
    2,000 votes noise exceeds it less than once in 100 times. Models with more weight stay. With few votes the criterion
    would drop one of two equally good models, whose blend beats both.
    """

    def total_loss(weights: Doubles) -> float:
        return float((record_log_loss(pool(predictions, weights), votes.labels) * votes.weights).sum())

    weights = learn(predictions, votes)
    kept, kept_loss = np.arange(len(weights)), total_loss(weights)
    while len(kept) > 1:
        fewer = np.delete(kept, weights[kept].argmin())
        if weights[kept].min() >= weights.sum() / 5:
            break
        if not prediction_mask(predictions[fewer]).any(axis=0).all():
            break
        candidate = np.zeros(len(weights))
        candidate[fewer] = learn(predictions[fewer], votes)
        loss = total_loss(candidate)
        if loss > kept_loss + np.log(votes.weights.sum()) / 2:
            break
        kept, weights, kept_loss = fewer, candidate, loss
    return weights


def greedy_weights(predictions: Probabilities, votes: Votes, rounds: int = 100) -> Doubles:
    """Return the weights (models,) of greedy ensemble selection with replacement on predictions (models, n, k).

    Each round adds the model that lowers the log loss of the mean of all picks most. See Caruana et al. 2004, "Ensemble
    selection from libraries of models". The round with the least loss is kept, so the result is never worse here than
    the best model. AutoGluon's default is 100 rounds, too. The first of equally good models is picked.
    """
    present = prediction_mask(predictions)
    of_label = _label_probabilities(predictions, votes.labels, present)
    equal_mean = of_label.sum(axis=0) / np.maximum(present.sum(axis=0), 1)  # for records that no pick predicts
    picks = np.zeros(len(predictions))
    sums, counts = np.zeros(len(votes)), np.zeros(len(votes))
    best_picks, least = picks, np.inf
    for _ in range(rounds):
        counts_after = counts + present
        mixed = np.where(counts_after > 0, (sums + of_label) / np.maximum(counts_after, 1), equal_mean)
        losses = np.average(-np.log(np.maximum(mixed, EPSILON)), axis=1, weights=votes.weights)
        best = int(losses.argmin())
        picks = picks + (np.arange(len(picks)) == best)
        sums, counts = sums + of_label[best], counts + present[best]
        if losses[best] < least:
            best_picks, least = picks, losses[best]
    weights: Doubles = best_picks / best_picks.sum()
    return weights


def preset_weights(preset: Mapping[str, float], models: Sequence[str]) -> Doubles:
    """Return the preset's weights for these models, scaled to sum 1. Unnamed models have weight 0.

    Raises ValueError if it names none of them.
    """
    weights = np.array([preset.get(model, 0.0) for model in models])
    if weights.sum() <= 0:
        raise ValueError(f"the preset names none of the models {', '.join(models)}")
    normalized: Doubles = weights / weights.sum()
    return normalized
