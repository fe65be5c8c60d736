"""What every rating model keeps."""

import numpy as np
import pytest
from scipy.special import expit

from core.registry import RATING_MODELS
from leaderboard.rating_model import probabilities_of

NAMES = RATING_MODELS.names()
WITH_TIES = [name for name in NAMES if RATING_MODELS.get(name).has_tie_parameter]
STEP = 1e-5


def some_votes():
    rng = np.random.default_rng(0)
    return rng.normal(size=40), rng.integers(0, 5, size=(40, 3)).astype(float)


def test_there_are_the_three_models_of_the_field():
    assert NAMES == ["bradley_terry", "davidson", "rao_kupper"]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_derivatives_by_finite_differences(name):
    model, tie = RATING_MODELS.get(name), -0.7
    difference, _ = some_votes()
    scores = model.scores(difference, tie)
    for parameter, values in (("difference", scores.difference), ("tie", scores.tie)):
        ends = [
            model.log_probabilities(difference + step, tie)
            if parameter == "difference"
            else model.log_probabilities(difference, tie + step)
            for step in (STEP, -STEP)
        ]
        np.testing.assert_allclose(values, (ends[0] - ends[1]) / (2 * STEP), atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_curvature_is_the_derivative_of_the_scores(name):
    model, tie = RATING_MODELS.get(name), -0.7
    difference, counts = some_votes()
    curvature = model.curvature(difference, tie, counts)

    def summed(difference, tie):
        scores = model.scores(difference, tie)
        return (counts * scores.difference).sum(axis=1), (counts * scores.tie).sum(axis=1)

    by_difference = [summed(difference + step, tie) for step in (STEP, -STEP)]
    by_tie = [summed(difference, tie + step) for step in (STEP, -STEP)]
    slope = [(up - down) / (2 * STEP) for up, down in zip(*by_difference, strict=True)]
    np.testing.assert_allclose(curvature.difference, -slope[0], atol=1e-7)
    np.testing.assert_allclose(curvature.cross, -slope[1], atol=1e-7)
    np.testing.assert_allclose(curvature.tie, -(by_tie[0][1] - by_tie[1][1]) / (2 * STEP), atol=1e-7)


@pytest.mark.parametrize("name", WITH_TIES)
def test_probabilities_sum_to_one_and_exchange(name):
    model = RATING_MODELS.get(name)
    difference, _ = some_votes()
    chances = probabilities_of(model, difference, -0.4)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(probabilities_of(model, -difference, -0.4), chances[:, [1, 0, 2]], atol=1e-12)
    np.testing.assert_allclose(model.win_rates(difference, -0.4), chances[:, 0] + chances[:, 2] / 2)


@pytest.mark.parametrize("name", WITH_TIES)
def test_without_ties_it_is_bradley_terry(name):
    difference, _ = some_votes()
    chances = probabilities_of(RATING_MODELS.get(name), difference, -30.0)
    np.testing.assert_allclose(chances[:, 0], expit(difference), atol=1e-12)


def test_rao_kupper_is_its_published_formula():
    theta, strengths = 1.7, np.array([0.3, 1.0, 2.2])
    chances = probabilities_of(
        RATING_MODELS.get("rao_kupper"), np.log(strengths[:1] / strengths[1:2]), np.log(np.log(theta))
    )
    p, q = strengths[0], strengths[1]
    tie = (theta**2 - 1) * p * q / ((p + theta * q) * (q + theta * p))
    np.testing.assert_allclose(chances[0], [p / (p + theta * q), q / (q + theta * p), tie])


def test_davidson_is_its_published_formula():
    nu, p, q = 0.6, 0.3, 1.9
    chances = probabilities_of(RATING_MODELS.get("davidson"), np.log([p / q]), np.log(nu))
    total = p + q + nu * np.sqrt(p * q)
    np.testing.assert_allclose(chances[0], [p / total, q / total, nu * np.sqrt(p * q) / total])
