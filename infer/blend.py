"""Combining the predictions of several models into one."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from preference.metrics import EPSILON

Floats = npt.NDArray[np.float64]
# Kaggle's metric and scikit-learn's clip at about 2e-16; a float32 softmax can give an exact 0 long before.
_FLOOR = 1e-7


def linear_pool(predictions: Floats, weights: Floats) -> Floats:
    """Weighted mean (n, 3) of the models' probabilities (models, n, 3); weights (models,) sum to 1."""
    return open_simplex(np.einsum("m,mnc->nc", weights, predictions))


def log_pool(predictions: Floats, weights: Floats) -> Floats:
    """Geometric mean (n, 3) of the models' probabilities (models, n, 3), each to the power of its weight (models,).

    Weights that sum to more than 1 sharpen the prediction and less than 1 flatten it, so that this pool calibrates as
    it combines (Genest and Zidek 1986).
    """
    scores = np.einsum("m,mnc->nc", weights, np.log(np.maximum(predictions, _FLOOR)))
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return open_simplex(powers / powers.sum(axis=1, keepdims=True))


def open_simplex(probabilities: Floats) -> Floats:
    """Probabilities (n, 3) moved off 0 and 1 by at most 1e-7 and summing to 1 again."""
    clipped = np.maximum(probabilities, _FLOOR)
    rescaled: Floats = clipped / clipped.sum(axis=1, keepdims=True)
    return rescaled


def learn_weights(predictions: Floats, labels: npt.NDArray[np.int8]) -> Floats:
    """Weights (models,) on the simplex with the least log loss of the linear pool on predictions (models, n, 3).

    The loss is convex in the weights, so SLSQP finds the optimum from equal weights. `predictions` must be
    out-of-fold, else the weights reward models for what they memorised.
    """
    from scipy.optimize import minimize

    models = len(predictions)
    if models == 1:
        return np.ones(1)
    chosen = predictions[:, np.arange(len(labels)), labels]  # (models, n): what each gave to the vote

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixed = np.clip(weights @ chosen, EPSILON, None)
        gradient: Floats = -(chosen / mixed).mean(axis=1)
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
    return normalised


def learn_log_weights(predictions: Floats, labels: npt.NDArray[np.int8]) -> Floats:
    """Weights (models,) from 0 up with the least log loss of the log pool on predictions (models, n, 3).

    The loss is convex in the weights: it is that of a multinomial logistic regression on the models' log-probabilities.
    `predictions` must be out-of-fold, as for `learn_weights`.
    """
    from scipy.optimize import minimize

    models = len(predictions)
    logs = np.log(np.maximum(predictions, _FLOOR))
    rows = np.arange(len(labels))
    chosen = logs[:, rows, labels]  # (models, n)

    def loss(weights: Floats) -> tuple[float, Floats]:
        pooled = log_pool(predictions, weights)
        gradient: Floats = (np.einsum("nc,mnc->mn", pooled, logs) - chosen).mean(axis=1)
        return float(-np.log(pooled[rows, labels]).mean()), gradient

    found = minimize(loss, np.full(models, 1 / models), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * models)
    weights: Floats = np.asarray(found.x)
    return weights


Learn = Callable[[Floats, npt.NDArray[np.int8]], Floats]
Pool = Callable[[Floats, Floats], Floats]


def nested_pool(
    predictions: Floats,
    labels: npt.NDArray[np.int8],
    folds: npt.NDArray[np.int16],
    learn: Learn = learn_weights,
    pool: Pool = linear_pool,
) -> Floats:
    """A learnt blend (n, 3) scored honestly: each fold's records are pooled with weights learnt on the others."""
    pooled = np.empty(predictions.shape[1:])
    for fold in np.unique(folds):
        held_out = folds == fold
        weights = learn(predictions[:, ~held_out], labels[~held_out])
        pooled[held_out] = pool(predictions[:, held_out], weights)
    return pooled


def preset_weights(preset: Mapping[str, float], models: Sequence[str]) -> Floats:
    """The preset's weights for the models present, in their order, scaled to sum 1; 0 for models it does not name.

    Raises ValueError if it names none of them.
    """
    weights = np.array([preset.get(model, 0.0) for model in models])
    if weights.sum() <= 0:
        raise ValueError(f"the preset names none of the models {', '.join(models)}")
    normalised: Floats = weights / weights.sum()
    return normalised
