import numpy as np

from metrics.baselines import class_prior_baseline, length_baseline
from metrics.scores import log_loss
from tests.helpers.blend_votes import on
from votes.swap import swap_labels, swap_probabilities


def votes(rows, seed=0):
    """Lengths, and votes for the longer answer that end in a tie the likelier the more alike the lengths are."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(1, 2000, size=(2, rows)).astype(float)
    x = (a - b) / (a + b)
    scores = np.stack([2 * x, -2 * x, 0.5 - 1.5 * np.abs(x)], axis=1)
    truth = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in truth], dtype=np.int8)
    return a, b, labels, rng.integers(0, 5, rows).astype(np.int16), truth


def test_the_truth_is_found_where_length_is_all_that_counts():
    a, b, labels, folds, truth = votes(20_000)
    assert np.abs(length_baseline(a, b, on(labels, folds)) - truth).max() < 0.03


def test_exchanging_the_answers_exchanges_the_probabilities():
    a, b, labels, folds, _ = votes(600)
    swapped = length_baseline(b, a, on(swap_labels(labels), folds))
    assert np.allclose(swapped, swap_probabilities(length_baseline(a, b, on(labels, folds))), atol=1e-9)


def test_no_record_is_predicted_by_its_own_vote():
    a, b, labels, folds, _ = votes(300)
    before = length_baseline(a, b, on(labels, folds))
    labels[folds == 2] = 2
    after = length_baseline(a, b, on(labels, folds))
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.allclose(before[folds != 2], after[folds != 2])


def test_shuffled_votes_and_empty_answers_teach_nothing():
    a, b, labels, folds, _ = votes(2000)
    labels = np.random.default_rng(1).permutation(labels)
    a[:5] = b[:5] = 0
    predicted = length_baseline(a, b, on(labels, folds))
    assert np.allclose(predicted.sum(axis=1), 1)
    assert log_loss(predicted, labels) > log_loss(class_prior_baseline(on(labels, folds)), labels) - 0.003
