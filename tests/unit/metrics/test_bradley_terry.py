import numpy as np

from metrics.bradley_terry import fit_bradley_terry
from metrics.differences import normalized_difference
from votes.swap import win_shares

TRUTH = np.array([0.8, -0.4, 0.0])


def votes(rows, rng, copies=1):
    """Features and wins drawn from the model; each record stands `copies` times, under one prompt."""
    differences = rng.normal(size=(rows, 3))
    wins = (rng.random(rows) < 1 / (1 + np.exp(-differences @ TRUTH))).astype(float)
    return differences.repeat(copies, axis=0), wins.repeat(copies), np.arange(rows).repeat(copies)


def test_known_coefficients_are_recovered():
    fitted = fit_bradley_terry(*votes(40_000, np.random.default_rng(1)))
    assert np.allclose(fitted.coefficients, TRUTH, atol=0.05)


def test_intervals_cover_the_truth_and_know_that_copies_say_nothing_new():
    covered, widths = np.zeros(3), []
    for seed in range(100):
        fitted = fit_bradley_terry(*votes(300, np.random.default_rng(seed), copies=4))
        intervals = [fitted.interval(n) for n in range(3)]
        covered += [low <= value <= high for (low, high), value in zip(intervals, TRUTH, strict=True)]
        once = fit_bradley_terry(*votes(300, np.random.default_rng(seed)))
        widths.append(np.mean(fitted.standard_errors / once.standard_errors))
    assert (covered >= 88).all()
    assert (covered < 100).any()
    assert np.allclose(widths, 1, atol=0.02)  # half of that without the prompts


def test_half_wins_are_less_noisy_than_the_hessian_takes_them_for():
    """With nothing but ties there is nothing to be unsure of."""
    rng = np.random.default_rng(2)
    fitted = fit_bradley_terry(rng.normal(size=(200, 2)), np.full(200, 0.5), np.arange(200))
    assert np.allclose(fitted.coefficients, 0)
    assert np.allclose(fitted.standard_errors, 0)


def test_separable_votes_end_in_finite_coefficients():
    x = np.linspace(-1, 1, 20)[:, None]
    fitted = fit_bradley_terry(x, (x[:, 0] > 0).astype(float), np.arange(20))
    assert 1 < fitted.coefficients[0] < 100


def test_normalized_difference_and_half_wins():
    a, b = np.array([3.0, 0, 0, 5]), np.array([1.0, 0, 4, 5])
    assert normalized_difference(a, b).tolist() == [0.5, 0, -1, 0]
    assert win_shares(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.3, 0.2]])).tolist() == [1, 0, 0.5, 0.6]
