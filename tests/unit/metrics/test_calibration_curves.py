import numpy as np

from metrics.calibration_curves import (
    confusion_matrix,
    equal_count_bins,
    histogram,
    reliability_diagram,
    wilson_interval,
)
from tests.helpers.blend_votes import on


def test_wilson_interval_is_the_published_one_and_stays_inside_0_and_1():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    assert np.allclose(wilson_interval(81, 263), (0.2553, 0.3662), atol=5e-5)
    assert np.allclose(wilson_interval(15, 148), (0.0624, 0.1605), atol=5e-5)
    assert np.allclose(wilson_interval(0, 20), (0, 0.1611), atol=5e-5)
    assert np.allclose(wilson_interval(1, 29), (0.0061, 0.1718), atol=5e-5)


def test_the_truth_lies_on_the_diagonal_and_the_overconfident_do_not():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.6, 20_000)
    came = rng.random(20_000) < truth
    bins = reliability_diagram(truth, came)
    assert [each["count"] for each in bins] == [2000] * 10
    assert all(abs(each["predicted"] - each["observed"]) < 0.04 for each in bins)
    assert sum(each["ci95"][0] <= each["predicted"] <= each["ci95"][1] for each in bins) >= 8
    stretched = reliability_diagram(np.clip(0.4 + 2 * (truth - 0.4), 0, 1), came)
    assert stretched[0]["observed"] > stretched[0]["ci95"][0] > stretched[0]["predicted"]
    assert stretched[-1]["observed"] < stretched[-1]["ci95"][1] < stretched[-1]["predicted"]


def test_bins_hold_equally_many_and_not_too_few():
    values = np.random.default_rng(1).normal(size=400)
    assert np.bincount(equal_count_bins(values, 8)).tolist() == [50] * 8
    assert np.bincount(equal_count_bins(values[:90], 8)).tolist() == [30] * 3
    assert equal_count_bins(values[:7], 8).tolist() == [0] * 7
    low, high = (values[equal_count_bins(values, 2) == half] for half in (0, 1))
    assert low.max() < high.min()
    assert np.bincount(equal_count_bins(np.array([0.0] * 60 + [1.0] * 40), 4)).tolist() == [60, 40]


def test_equal_probabilities_share_a_bin():
    (only,) = reliability_diagram(np.full(90, 1 / 3), np.arange(90) % 3 == 0)
    assert only["count"] == 90
    assert np.isclose(only["observed"], 1 / 3)


def test_confusion_and_histogram_count_every_record_once():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    counts = confusion_matrix(probabilities, on(np.array([0, 0, 1, 2], dtype=np.int8)))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert histogram(probabilities[:, 2], bins=4) == [2, 1, 0, 1]
