import numpy as np
import pytest

from infer.blend import (
    learn_log_weights,
    learn_weights,
    linear_pool,
    log_pool,
    nested_pool,
    open_simplex,
    preset_weights,
)
from preference.metrics import log_loss


def votes(rows: int, seed: int = 0):
    """True probabilities, votes drawn from them, and three predictors: near the truth, blurred, and pure noise."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet([1.5, 1.5, 1.0], size=rows)
    labels = np.array([rng.choice(3, p=row) for row in truth], dtype=np.int8)
    blurred = 0.5 * truth + 0.5 * rng.dirichlet([3, 3, 3], size=rows)
    noise = rng.dirichlet([1, 1, 1], size=rows)
    near = 0.9 * truth + 0.1 * rng.dirichlet([3, 3, 3], size=rows)
    return truth, labels, np.stack([near, blurred, noise])


def test_weights_are_on_the_simplex_and_at_the_optimum():
    _, labels, predictions = votes(3000)
    weights = learn_weights(predictions, labels)
    assert weights.min() >= 0
    assert np.isclose(weights.sum(), 1)
    best = log_loss(linear_pool(predictions, weights), labels)
    rng = np.random.default_rng(1)
    others = [log_loss(linear_pool(predictions, w), labels) for w in rng.dirichlet([0.5, 0.5, 0.5], size=300)]
    assert best <= min(others) + 1e-6
    assert weights[2] < 0.02
    assert weights[0] > 0.8


def test_two_views_of_the_truth_are_better_together():
    truth, labels, _ = votes(4000, seed=2)
    rng = np.random.default_rng(5)
    views = np.stack([open_simplex(truth + rng.normal(0, 0.15, truth.shape)) for _ in range(2)])
    pooled = log_loss(nested_pool(views, labels, (np.arange(4000) % 5).astype(np.int16)), labels)
    assert pooled < min(log_loss(view, labels) for view in views) - 0.01


def test_nested_predictions_never_saw_their_own_fold():
    _, labels, predictions = votes(600)
    folds = (np.arange(600) % 4).astype(np.int16)
    changed = labels.copy()
    changed[folds == 2] = (changed[folds == 2] + 1) % 3
    before, after = (nested_pool(predictions, these, folds) for these in (labels, changed))
    assert (before[folds == 2] == after[folds == 2]).all()
    assert (before[folds != 2] != after[folds != 2]).any()


def test_the_pool_is_open_and_sums_to_one_even_over_certainties():
    certain = np.tile(np.array([1.0, 0.0, 0.0]), (2, 5, 1))
    pooled = linear_pool(certain, np.array([0.5, 0.5]))
    assert ((pooled > 0) & (pooled < 1)).all()
    assert np.allclose(pooled.sum(axis=1), 1, atol=1e-12)


def test_preset_is_rescaled_over_the_models_present():
    published = {"gemma": 50.0, "llama": 42.0, "lightgbm": 0.5}
    assert np.allclose(preset_weights(published, ["lightgbm", "xgboost", "gemma"]), [0.5 / 50.5, 0, 50 / 50.5])
    with pytest.raises(ValueError, match="none of the models xgboost"):
        preset_weights(published, ["xgboost"])


def test_a_single_model_gets_all_the_weight():
    _, labels, predictions = votes(50)
    assert learn_weights(predictions[:1], labels).tolist() == [1.0]


def test_log_weights_are_at_the_optimum_and_sharpen_what_is_too_flat():
    truth, labels, predictions = votes(3000)
    weights = learn_log_weights(predictions, labels)
    assert weights.min() >= 0
    best = log_loss(log_pool(predictions, weights), labels)
    rng = np.random.default_rng(1)
    others = [log_loss(log_pool(predictions, w), labels) for w in 2 * rng.dirichlet([1, 1, 1], size=300)]
    assert best <= min(others) + 1e-6
    flat = np.sqrt(truth) / np.sqrt(truth).sum(axis=1, keepdims=True)
    (power,) = learn_log_weights(flat[None], labels)
    assert abs(power - 2) < 0.2
    assert abs(log_loss(log_pool(flat[None], np.array([2.0])), labels) - log_loss(truth, labels)) < 1e-6


def test_nested_log_predictions_never_saw_their_own_fold():
    _, labels, predictions = votes(600)
    folds = (np.arange(600) % 4).astype(np.int16)
    changed = labels.copy()
    changed[folds == 2] = (changed[folds == 2] + 1) % 3
    both = [nested_pool(predictions, these, folds, learn_log_weights, log_pool) for these in (labels, changed)]
    assert (both[0][folds == 2] == both[1][folds == 2]).all()
    assert (both[0][folds != 2] != both[1][folds != 2]).any()
