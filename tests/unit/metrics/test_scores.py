import numpy as np
from sklearn.metrics import log_loss as sklearn_log_loss

from core.arrays import Doubles
from metrics.baselines import class_prior_baseline
from metrics.intervals import bootstrap_means, bootstrap_part_means, percentile_interval, standard_error
from metrics.scores import accuracy, expected_calibration_error, log_loss, record_log_loss, vote_log_loss
from tests.helpers.blend_votes import on


def random_predictions(rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1, 1, 1], size=rows)
    labels = np.array([rng.choice(3, p=row) for row in probabilities], dtype=np.int8)
    return probabilities, labels


def test_log_loss_is_scikit_learns_even_at_zero_probability():
    probabilities, labels = random_predictions(500)
    probabilities[:2] = [[1, 0, 0], [0, 1, 0]]
    labels[:2] = [1, 1]
    assert np.isclose(log_loss(probabilities, labels), sklearn_log_loss(labels, probabilities), rtol=1e-12)


def test_calibration_error_is_small_for_the_truth_and_large_for_the_overconfident():
    probabilities, labels = random_predictions(20_000)
    sharpened = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
    assert expected_calibration_error(probabilities, labels) < 0.015
    assert expected_calibration_error(sharpened, labels) > 0.1


def test_interval_covers_the_true_mean_and_grouping_widens_it():
    rng = np.random.default_rng(1)
    covered, widths = 0, []
    for seed in range(100):
        shared = rng.normal(size=40).repeat(5)
        values = (shared + 0.1 * rng.normal(size=200))[:, None]
        grouped = bootstrap_means(values, np.arange(40).repeat(5), repetitions=400, seed=seed)
        alone = bootstrap_means(values, np.arange(200), repetitions=400, seed=seed)
        low, high = percentile_interval(grouped[:, 0])
        covered += low <= 0 <= high
        widths.append((high - low) / np.ptp(percentile_interval(alone[:, 0])))
    assert 85 <= covered <= 100  # 95 expected, less what a percentile interval of 40 groups loses
    assert np.mean(widths) > 1.8  # five equal votes a prompt carry little more than one: sqrt(5) at most


def test_class_prior_never_sees_the_held_out_votes():
    labels = np.array([0, 0, 1, 2, 0, 1], dtype=np.int8)
    folds = np.array([0, 0, 0, 1, 1, 1], dtype=np.int16)
    prior = class_prior_baseline(on(labels, folds))
    assert np.allclose(prior[0], [2 / 6, 2 / 6, 2 / 6])
    assert np.allclose(prior[3], [3 / 6, 2 / 6, 1 / 6])


def test_means_of_parts_are_those_of_the_same_draws():
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=60), np.arange(20).repeat(3)
    part = np.arange(60) < 30
    means = bootstrap_part_means(values, np.stack([part, ~part], axis=1), groups, repetitions=50, seed=4)
    assert np.allclose(means[:, 2], bootstrap_means(values[:, None], groups, None, 50, 4)[:, 0])
    alone = bootstrap_part_means(np.where(part, values, 1e6), part[:, None], groups, None, 50, 4)
    assert np.allclose(means[:, 0], alone[:, 0])  # what lies outside a part is no part of its mean
    rare = bootstrap_part_means(values, (np.arange(60) == 7)[:, None], groups, repetitions=50, seed=4)
    assert np.isnan(rare[:, 0]).any()
    assert np.allclose(percentile_interval(rare[:, 0]), values[7])


def test_standard_errors_are_those_of_independent_groups():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=300)
    alone = standard_error(values, np.arange(300))
    assert np.isclose(alone, values.std(ddof=1) / np.sqrt(300), rtol=1e-12)
    # Copies of a record in its group say nothing new, copies elsewhere would.
    twice, groups = np.concatenate([values, values]), np.concatenate([np.arange(300), np.arange(300)])
    assert np.isclose(standard_error(twice, groups), alone, rtol=1e-12)
    assert standard_error(twice, np.arange(600)) < 0.75 * alone
    assert standard_error(values, np.zeros(300, int)) == np.inf
    drawn = bootstrap_means(twice[:, None], groups)[:, 0].std()
    assert np.isclose(drawn, alone, rtol=0.1)


def test_a_row_of_several_votes_counts_like_as_many_rows():
    probabilities, labels = random_predictions(60)
    weights: Doubles = (np.arange(60) % 3 + 1).astype(np.float64)
    copies = np.repeat(np.arange(60), weights.astype(int))
    groups = np.arange(60) // 3
    for score in (log_loss, accuracy, expected_calibration_error):
        assert np.isclose(score(probabilities, labels, weights), score(probabilities[copies], labels[copies]))
    losses = record_log_loss(probabilities, labels)
    assert np.isclose(standard_error(losses, groups, weights), standard_error(losses[copies], groups[copies]))
    once = bootstrap_means(losses[:, None], groups, weights, repetitions=20)
    assert np.allclose(once, bootstrap_means(losses[copies, None], groups[copies], repetitions=20))
    counts = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    single = log_loss(probabilities[[0, 0, 0, 1]], np.array([0, 0, 1, 2]))
    assert np.isclose(vote_log_loss(probabilities[:2], counts), single)
