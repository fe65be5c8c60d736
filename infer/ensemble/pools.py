"""Combining the predictions of several models into one.

A model may lack single records: their rows are nan. Such a record is pooled from the models that predict it, their
weights scaled so that the total stays what it is over all models; weights are learnt by the same rule.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from metrics.scores import EPSILON, record_log_loss

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Learn = Callable[[Floats, Labels], Floats]
Pool = Callable[[Floats, Floats], Floats]
# Kaggle's metric and scikit-learn's clip at about 2e-16; a float32 softmax can give an exact 0 long before.
_FLOOR = 1e-7


def predicted_by(predictions: Floats) -> Mask:
    """Which models predict which records (models, n), of predictions (models, n, 3) with nan rows where they do not."""
    return np.asarray(~np.isnan(predictions).any(axis=2))


def record_weights(weights: Floats, there: Mask) -> Floats:
    """Weights (models, n) of each record: those (models,) of the models that predict it, scaled to the total of all.

    Where all of these have weight 0, they share the total equally. Raises ValueError if no model predicts a record.
    """
    if not there.any(axis=0).all():
        raise ValueError(f"no model predicts {(~there.any(axis=0)).sum()} of {there.shape[1]} records")
    if there.all():
        return np.broadcast_to(weights[:, None], there.shape)
    shares = np.where(weights @ there > 0, weights[:, None], 1.0) * there
    scaled: Floats = weights.sum() * shares / shares.sum(axis=0)
    return scaled


def linear_pool(predictions: Floats, weights: Floats) -> Floats:
    """Weighted mean (n, 3) of the models' probabilities (models, n, 3); weights (models,) sum to 1."""
    there = predicted_by(predictions)
    known = np.where(there[:, :, None], predictions, 0.0)
    return open_simplex(np.einsum("mn,mnc->nc", record_weights(weights, there), known))


def log_pool(predictions: Floats, weights: Floats) -> Floats:
    """Geometric mean (n, 3) of the models' probabilities (models, n, 3), each to the power of its weight (models,).

    Weights that sum to more than 1 sharpen the prediction and less than 1 flatten it, so that this pool calibrates as
    it combines (Genest and Zidek 1986).
    """
    there = predicted_by(predictions)
    return _pool_logs(_logs(predictions, there), there, weights)


def _logs(predictions: Floats, there: Mask) -> Floats:
    """Logarithms (models, n, 3) of probabilities, 0 where a model lacks a record."""
    logs: Floats = np.log(np.maximum(np.where(there[:, :, None], predictions, 1.0), _FLOOR))
    return logs


def _pool_logs(logs: Floats, there: Mask, weights: Floats) -> Floats:
    return open_simplex(softmax(np.einsum("mn,mnc->nc", record_weights(weights, there), logs)))


def softmax(scores: Floats) -> Floats:
    """Probabilities (n, 3) whose logarithms are the scores (n, 3) but for a constant of each row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def open_simplex(probabilities: Floats) -> Floats:
    """Probabilities (n, 3) moved off 0 and 1 by at most 1e-7 and summing to 1 again."""
    clipped = np.maximum(probabilities, _FLOOR)
    rescaled: Floats = clipped / clipped.sum(axis=1, keepdims=True)
    return rescaled


def _given_to_votes(predictions: Floats, labels: Labels, there: Mask) -> Floats:
    """What each model gave to each vote (models, n); 0 where it lacks the record."""
    return np.where(there, predictions[:, np.arange(len(labels)), labels], 0.0)


def learn_weights(predictions: Floats, labels: Labels) -> Floats:
    """Weights (models,) on the simplex with the least log loss of the linear pool on predictions (models, n, 3).

    Where every model predicts every record the loss is convex, so SLSQP finds the optimum from equal weights; nan rows
    bend it a little. Should it give up early, the weights are greedy ones.
    `predictions` must be out-of-fold, else the weights reward models for what they memorised.
    """
    from scipy.optimize import minimize

    models = len(predictions)
    if models == 1:
        return np.ones(1)
    there = predicted_by(predictions)
    chosen = _given_to_votes(predictions, labels, there)

    def loss(weights: Floats) -> tuple[float, Floats]:
        # As a ratio it holds for records that lack models, whatever the sum of the weights on the way.
        scaled = record_weights(weights, there)
        given, total = (scaled * chosen).sum(axis=0), scaled.sum(axis=0)
        mixed = np.clip(given / total, EPSILON, None)
        share = weights @ there
        known = share > 0
        slopes = chosen[:, known] / (mixed * share)[known] - there[:, known] / share[known]
        gradient: Floats = -slopes.sum(axis=1) / len(labels)
        return float(-np.log(mixed).mean()), gradient

    found = minimize(
        loss,
        np.full(models, 1 / models),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * models,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda _: np.ones(models)},
        options={"maxiter": 500, "ftol": 1e-10},
    )
    weights = np.clip(found.x, 0.0, None)
    normalised: Floats = weights / weights.sum()
    # SLSQP gives up at the optimum itself, too, where steps of rounding size lower nothing.
    if found.success or loss(normalised)[0] <= loss(greedy := greedy_weights(predictions, labels))[0]:
        return normalised
    return greedy


def learn_log_weights(predictions: Floats, labels: Labels) -> Floats:
    """Weights (models,) from 0 up with the least log loss of the log pool on predictions (models, n, 3).

    Where every model predicts every record the loss is convex: it is that of a multinomial logistic regression on the
    models' log-probabilities. `predictions` must be out-of-fold, as for `learn_weights`.
    """
    from scipy.optimize import minimize

    models = len(predictions)
    there = predicted_by(predictions)
    logs = _logs(predictions, there)
    rows = np.arange(len(labels))
    votes = np.eye(3)[labels]

    def loss(weights: Floats) -> tuple[float, Floats]:
        pooled = _pool_logs(logs, there, weights)
        errors = pooled - votes
        pulls = np.einsum("nc,mnc->mn", errors, logs)
        share = weights @ there
        # A record's scores are total / share * (weights @ logs): its total, too, moves with every weight.
        scale = np.divide(weights.sum(), share, out=np.ones_like(share), where=share > 0)
        mean = np.divide(weights @ pulls, share, out=np.zeros_like(share), where=share > 0)
        gradient: Floats = (pulls * scale + mean * (1 - scale * there)).mean(axis=1)
        return float(-np.log(pooled[rows, labels]).mean()), gradient

    found = minimize(loss, np.full(models, 1 / models), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * models)
    weights: Floats = np.asarray(found.x)
    return weights


def drop_idle(learn: Learn, pool: Pool, predictions: Floats, labels: Labels) -> Floats:
    """The weights (models,) that `learn` finds, without those that could as well be chance.

    A useless model gets a weight of about the weights' standard error, which reads as a share of the blend. So models
    of less than a fifth of the weight are left out, the least one first, as long as each costs less of the votes'
    log-likelihood than half the logarithm of their number, in nats (the Bayesian information criterion; Schwarz 1978):
    to 2,000 votes noise is worth more than that less than once in 100 times. Models of more weight stay: with few votes
    the criterion would drop one of two equal partners, too, whose blend is better than either.
    """
    weights = learn(predictions, labels)
    kept, least = np.arange(len(weights)), record_log_loss(pool(predictions, weights), labels).sum()
    while len(kept) > 1:
        fewer = np.delete(kept, weights[kept].argmin())
        if weights[kept].min() >= weights.sum() / 5:
            break
        if not predicted_by(predictions[fewer]).any(axis=0).all():
            break
        tried = np.zeros(len(weights))
        tried[fewer] = learn(predictions[fewer], labels)
        loss = record_log_loss(pool(predictions, tried), labels).sum()
        if loss > least + np.log(len(labels)) / 2:
            break
        kept, weights, least = fewer, tried, loss
    return weights


def greedy_weights(predictions: Floats, labels: Labels, rounds: int = 100) -> Floats:
    """Weights (models,) of greedy ensemble selection with replacement on predictions (models, n, 3).

    Caruana et al. 2004, "Ensemble selection from libraries of models": each round adds the model that brings the log
    loss of the mean of all picks lowest, and the round with the least loss is kept, so that the result is never worse
    on these records than the best model alone. 100 rounds are AutoGluon's default; the first of equally good models
    is picked. `predictions` must be out-of-fold, as for `learn_weights`.
    """
    there = predicted_by(predictions)
    chosen = _given_to_votes(predictions, labels, there)
    equally = chosen.sum(axis=0) / np.maximum(there.sum(axis=0), 1)  # for records that no pick predicts
    picks = np.zeros(len(predictions))
    given, sizes = np.zeros(len(labels)), np.zeros(len(labels))
    kept, least = picks, np.inf
    for _ in range(rounds):
        after = sizes + there
        mixed = np.where(after > 0, (given + chosen) / np.maximum(after, 1), equally)
        losses = -np.log(np.maximum(mixed, EPSILON)).mean(axis=1)
        best = int(losses.argmin())
        picks = picks + (np.arange(len(picks)) == best)
        given, sizes = given + chosen[best], sizes + there[best]
        if losses[best] < least:
            kept, least = picks, losses[best]
    weights: Floats = kept / kept.sum()
    return weights


def preset_weights(preset: Mapping[str, float], models: Sequence[str]) -> Floats:
    """The preset's weights for the models present, in their order, scaled to sum 1; 0 for models it does not name.

    Raises ValueError if it names none of them.
    """
    weights = np.array([preset.get(model, 0.0) for model in models])
    if weights.sum() <= 0:
        raise ValueError(f"the preset names none of the models {', '.join(models)}")
    normalised: Floats = weights / weights.sum()
    return normalised
