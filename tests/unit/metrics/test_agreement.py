import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from metrics.agreement import cohen_kappa, evaluator_row, score_agreement
from tests.helpers.blend_votes import single_votes


def votes_and_verdicts(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows).astype(np.int8)
    verdicts = np.where(rng.random(rows) < 0.6, labels, rng.integers(0, 3, rows))
    groups = rng.integers(0, 60, rows)
    return single_votes(labels, (groups % 5).astype(np.int16), groups), verdicts


def test_kappa_and_agreement_are_scikit_learns_and_intervals_a_plain_bootstraps():
    votes, verdicts = votes_and_verdicts()
    scores = score_agreement(np.eye(3)[verdicts], votes, seed=7)
    assert scores["agreement"] == pytest.approx((verdicts == votes.labels).mean(), abs=1e-12)
    assert scores["kappa"] == pytest.approx(cohen_kappa_score(verdicts, votes.labels), abs=1e-9)

    rng = np.random.default_rng(7)
    _, group_of = np.unique(votes.groups, return_inverse=True)
    members = [np.flatnonzero(group_of == group) for group in range(group_of.max() + 1)]
    samples = []
    for _ in range(2000):
        rows = np.concatenate([members[group] for group in rng.integers(0, len(members), len(members))])
        alike = (verdicts[rows] == votes.labels[rows]).mean()
        samples.append((alike, cohen_kappa_score(verdicts[rows], votes.labels[rows])))
    expected = np.quantile(np.array(samples), [0.025, 0.975], axis=0)
    np.testing.assert_allclose(scores["agreement_ci95"], expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(scores["kappa_ci95"], expected[:, 1], atol=1e-9)


def test_kappa_of_constant_sides_is_nan():
    assert np.isnan(cohen_kappa(1.0, np.array([1.0, 0, 0]), np.array([1.0, 0, 0])))


def test_a_verdict_that_flips_counts_half_for_each():
    votes = single_votes(np.array([0, 1], np.int8), np.array([0, 1], np.int16), np.arange(2))
    assert score_agreement(np.array([[0.5, 0.5, 0], [0, 1, 0]]), votes, seed=0)["agreement"] == pytest.approx(0.75)


def test_alpaca_evals_measures_on_an_example_by_hand():
    """The definitions are those of `analyze.py` in tatsu-lab/alpaca_eval.

    Agreement is 1 - |difference of preferences|, with the mode of people's votes, where a tie is 1.5.
    """
    a, b, tie = np.eye(3)
    people = np.array([[3, 1, 0], [0, 4, 0], [2, 2, 0], [0, 1, 3]], np.float64)  # modes 1, 2, both, 1.5
    first, second = np.stack([a, b, a, tie]), np.stack([a, a, a, b])
    lengths = np.array([[100, 10], [10, 100], [50, 40], [10, 100]], np.float64)
    lists = np.array([[True, False], [False, False], [False, True], [True, False]])
    row = evaluator_row([first, second], people, lengths, lists)
    # One annotation agrees with the modes in 1, 1, 0.5 and 1; the other in 1, 0, 0.5 and 0.5.
    assert row["human_agreement"] == pytest.approx((1 + 1 + 0.5 + 1 + 1 + 0 + 0.5 + 0.5) / 8)
    assert row["bias"] == pytest.approx((0 + 0.5 + 0.5 + 0.25) / 4)  # of the means 1, 1.5, 1 and 1.75
    assert row["variance"] == pytest.approx((0 + 1 + 0 + 0.5) / 4)
    assert row["prefers_longer"] == 4 / 5  # not in one annotation of the second; the third is too close
    assert row["prefers_lists"] == 2 / 5  # for the list in the first alone; a tie is no preference
    assert row["prefers_a"] == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 1 + 1 + 0) / 8)


def test_agreement_is_with_the_mode_of_votes_and_missing_orders_do_not_count():
    a, b, tie = np.eye(3)
    none = np.full(3, np.nan)
    people = np.array([[2, 2, 1], [5, 3, 3]], np.float64)  # modes A and B, and A; the medians are a tie
    lengths, lists = np.ones((2, 2)), np.zeros((2, 2), bool)
    row = evaluator_row([np.stack([tie, b]), np.stack([none, a]), np.stack([tie, none])], people, lengths, lists)
    assert row["human_agreement"] == pytest.approx((0.5 + 0.5 + 0 + 1) / 4)
    assert row["bias"] == pytest.approx((0.5 + 0.5) / 2)
    assert row["variance"] == pytest.approx((0 + 1) / 2)


def test_one_annotation_has_neither_bias_nor_variance():
    row = evaluator_row(
        [np.eye(3)[[0, 1]]], np.array([[1.0, 0, 0], [0, 1, 0]]), np.ones((2, 2)), np.zeros((2, 2), bool)
    )
    assert (row["bias"], row["variance"], row["prefers_longer"], row["prefers_lists"]) == (None, None, None, None)
    assert row["human_agreement"] == 1.0
