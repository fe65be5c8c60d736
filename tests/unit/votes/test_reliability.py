"""The model of voters finds who is reliable, and predicts votes that it has not seen."""

import numpy as np
import pytest

from votes.reliability import fit_reliability


def drawn(pairs: int, accuracies: list[float], seed: int, classes: int = 3):
    """Votes of everybody on every pair; a voter says the true outcome, or with 1 - accuracy any outcome."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, pairs)
    pair = np.repeat(np.arange(pairs), len(accuracies))
    voter = np.tile(np.arange(len(accuracies)), pairs)
    right = rng.random(len(pair)) < np.array(accuracies)[voter]
    votes = np.where(right, truth[pair], rng.integers(0, classes, len(pair)))
    return truth, pair, voter, np.eye(classes)[votes]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_reliable_voters_weigh_more_and_the_truth_is_found(classes):
    truth, pair, voter, shares = drawn(400, [0.9, 0.9, 0.7, 0.3, 0.0], 1, classes)
    fitted = fit_reliability(pair, voter, shares)
    weights = fitted.weights
    assert weights[0] > weights[2] > weights[3] > weights[4] >= 0
    assert weights[4] < 0.05 * weights[0]
    assert (fitted.truth.argmax(axis=1) == truth).mean() > 0.9
    majority = np.stack([np.bincount(pair, column) for column in shares.T], axis=1).argmax(axis=1)
    assert (fitted.truth.argmax(axis=1) == truth).mean() > (majority == truth).mean()
    np.testing.assert_allclose(fitted.confusion.sum(axis=2), 1)
    np.testing.assert_allclose(fitted.prior.sum(), 1)


def test_held_out_votes_are_predicted_better_than_by_the_majority():
    _, pair, voter, shares = drawn(400, [0.9, 0.8, 0.3, 0.1, 0.1, 0.1], 2)
    held_out = np.random.default_rng(3).random(len(pair)) < 0.2
    fitted = fit_reliability(pair[~held_out], voter[~held_out], shares[~held_out])
    counts = np.stack([np.bincount(pair[~held_out], column, 400) for column in shares[~held_out].T], axis=1) + 1
    majority = counts / counts.sum(axis=1, keepdims=True)
    labels = shares[held_out].argmax(axis=1)
    rows = np.arange(len(labels))
    by_model = -np.log(fitted.predict(pair[held_out], voter[held_out])[rows, labels]).mean()
    assert by_model < -np.log(majority[pair[held_out]][rows, labels]).mean() - 0.05


def test_one_vote_on_each_pair_leaves_all_voters_about_alike():
    rng = np.random.default_rng(5)
    shares = np.eye(3)[rng.integers(0, 3, 300)]
    weights = fit_reliability(np.arange(300), np.arange(300) % 10, shares).weights
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()


def test_people_who_always_click_one_side_weigh_little():
    # Three of eight, so they are the majority on many pairs.
    _, pair, voter, shares = drawn(300, [0.7, 0.7, 0.6, 0.6, 0.5, 0.0, 0.0, 0.0], 7)
    shares[voter >= 5] = [1, 0, 0]
    weights = fit_reliability(pair, voter, shares).weights
    assert weights[5:].max() < 0.1 * weights[:5].min()


@pytest.mark.parametrize("outcome", [0, 2])
def test_all_weigh_the_same_where_votes_tell_nothing(outcome):
    shares = np.tile(np.eye(3)[outcome], (60, 1))
    weights = fit_reliability(np.repeat(np.arange(20), 3), np.tile(np.arange(3), 20), shares).weights
    np.testing.assert_allclose(weights, weights[0])
    assert weights[0] > 0.1
