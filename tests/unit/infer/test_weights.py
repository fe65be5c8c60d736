import dataclasses

import numpy as np
import pytest

from infer.ensemble.pools import clip_to_simplex, linear_pool, log_pool
from infer.ensemble.weights import (
    drop_idle_models,
    greedy_weights,
    learn_linear_weights,
    learn_log_weights,
    preset_weights,
)
from metrics.scores import log_loss
from tests.helpers.blend_votes import on, votes
from votes.swap import swap_labels


def test_weights_are_on_the_simplex_and_at_the_optimum():
    _, labels, predictions = votes(3000)
    weights = learn_linear_weights(predictions, on(labels))
    assert weights.min() >= 0
    assert np.isclose(weights.sum(), 1)
    best = log_loss(linear_pool(predictions, weights), labels)
    rng = np.random.default_rng(1)
    others = [log_loss(linear_pool(predictions, w), labels) for w in rng.dirichlet([0.5, 0.5, 0.5], size=300)]
    assert best <= min(others) + 1e-6
    assert weights[2] < 0.02
    assert weights[0] > 0.8


def test_preset_is_rescaled_over_the_models_present():
    published = {"gemma": 50.0, "llama": 42.0, "lightgbm": 0.5}
    assert np.allclose(preset_weights(published, ["lightgbm", "xgboost", "gemma"]), [0.5 / 50.5, 0, 50 / 50.5])
    with pytest.raises(ValueError, match="none of the models xgboost"):
        preset_weights(published, ["xgboost"])


def test_a_single_model_gets_all_the_weight():
    _, labels, predictions = votes(50)
    assert learn_linear_weights(predictions[:1], on(labels)).tolist() == [1.0]


def test_log_weights_are_at_the_optimum_and_sharpen_what_is_too_flat():
    truth, labels, predictions = votes(3000)
    weights = learn_log_weights(predictions, on(labels))
    assert weights.min() >= 0
    best = log_loss(log_pool(predictions, weights), labels)
    rng = np.random.default_rng(1)
    others = [log_loss(log_pool(predictions, w), labels) for w in 2 * rng.dirichlet([1, 1, 1], size=300)]
    assert best <= min(others) + 1e-6
    flat = np.sqrt(truth) / np.sqrt(truth).sum(axis=1, keepdims=True)
    (power,) = learn_log_weights(flat[None], on(labels))
    assert abs(power - 2) < 0.2
    assert abs(log_loss(log_pool(flat[None], np.array([2.0])), labels) - log_loss(truth, labels)) < 1e-6


def test_greedy_selection_is_never_worse_than_the_best_model_and_leaves_noise_out():
    for seed in range(5):
        _, labels, predictions = votes(400, seed)
        weights = greedy_weights(predictions, on(labels))
        alone = [log_loss(each, labels) for each in predictions]
        assert log_loss(linear_pool(predictions, weights), labels) <= min(alone) + 1e-12
        assert weights.sum() == pytest.approx(1)
        assert weights[2] < 0.05
    views = np.stack(
        [clip_to_simplex(votes(400)[0] + np.random.default_rng(n).normal(0, 0.15, (400, 3))) for n in (1, 2)]
    )
    labels = votes(400)[1]
    assert greedy_weights(views, on(labels), rounds=3).tolist() == [0.5, 0.5]  # the third pick would make it worse
    best = log_loss(linear_pool(views, learn_linear_weights(views, on(labels))), labels)
    assert log_loss(linear_pool(views, greedy_weights(views, on(labels))), labels) < best + 1e-4


@pytest.mark.parametrize(("learn", "pool"), [(learn_linear_weights, linear_pool), (learn_log_weights, log_pool)])
def test_idle_models_are_dropped_and_useful_ones_are_not(learn, pool):
    kept = 0
    for seed in range(10):
        truth, labels, predictions = votes(1000, seed)
        weights = drop_idle_models(learn, pool, predictions, on(labels))
        kept += weights[2] > 0
        assert log_loss(pool(predictions, weights), labels) < log_loss(truth, labels) + 0.02
        views = np.stack(
            [clip_to_simplex(truth + np.random.default_rng(n).normal(0, 0.15, truth.shape)) for n in (1, 2)]
        )
        both = drop_idle_models(learn, pool, views, on(labels))
        assert (both > 0.2 * both.sum()).all()
    assert kept <= 1
    # With few votes neither of two partners is missed by the criterion, but both stay.
    truth, labels, _ = votes(1000, seed=1)
    pair = [clip_to_simplex(truth + np.random.default_rng(n).normal(0, 0.05, truth.shape)) for n in (1, 2)]
    assert (drop_idle_models(learn, pool, np.stack(pair)[:, :100], on(labels[:100])) > 0.3).all()


def test_a_model_is_not_dropped_that_alone_predicts_some_record():
    _, labels, predictions = votes(1000, seed=1)
    pair = predictions[[0, 2]]
    assert drop_idle_models(learn_log_weights, log_pool, pair, on(labels))[1] == 0
    pair[0, :3] = np.nan
    assert learn_log_weights(pair, on(labels))[1] > 0
    assert drop_idle_models(learn_log_weights, log_pool, pair, on(labels))[1] > 0


def holes(predictions, share, seed=0):
    """The predictions with nan rows, never all of a record's."""
    lacking = np.random.default_rng(seed).random(predictions.shape[:2]) < share
    lacking[:, lacking.all(axis=0)] = False
    return np.where(lacking[:, :, None], np.nan, predictions)


@pytest.mark.parametrize(
    ("learn", "pool"),
    [(learn_linear_weights, linear_pool), (learn_log_weights, log_pool), (greedy_weights, linear_pool)],
)
def test_weights_learned_with_gaps_are_those_for_pools_with_gaps(learn, pool):
    _, labels, predictions = votes(2000)
    gappy = holes(predictions, 0.3)
    weights = learn(gappy, on(labels))
    best = log_loss(pool(gappy, weights), labels)
    rng = np.random.default_rng(1)
    total = weights.sum()
    others = [log_loss(pool(gappy, w), labels) for w in total * rng.dirichlet(0.5 + 20 * weights / total, size=300)]
    assert best <= min(others) + (1e-4 if learn is greedy_weights else 1e-6)
    assert np.isfinite(pool(gappy, weights)).all()


@pytest.mark.parametrize("learn", [learn_linear_weights, learn_log_weights, greedy_weights])
def test_exchanging_a_and_b_changes_no_weight(learn):
    _, labels, predictions = votes(500)
    gappy = holes(predictions, 0.2)
    np.testing.assert_array_equal(learn(gappy, on(labels)), learn(gappy[:, :, [1, 0, 2]], on(swap_labels(labels))))


@pytest.mark.parametrize("learn", [learn_linear_weights, learn_log_weights, greedy_weights])
def test_a_row_of_several_votes_counts_like_as_many_rows(learn):
    _, labels, predictions = votes(300)
    times = np.arange(300) % 3 + 1
    copies = np.repeat(np.arange(300), times)
    counted = dataclasses.replace(on(labels), weights=times.astype(float))
    assert np.allclose(learn(predictions, counted), learn(predictions[:, copies], on(labels[copies])), atol=1e-3)
