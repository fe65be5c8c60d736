"""Ratings from votes and predictions: what predictions are worth, and what they must not do."""

import numpy as np
import pytest

from core.registry import RATING_MODELS
from core.settings.leaderboard import Leaderboard
from leaderboard.fit import fit_ratings
from leaderboard.hierarchical import hierarchical_ratings
from leaderboard.methods import RatingInputs, best_method, compare_methods, rate
from leaderboard.powered import powered_ratings
from leaderboard.rating_model import probabilities_of
from leaderboard.tables import equivalent_votes
from tests.helpers.battles import draw_votes, make_battles

BT, DAVIDSON = RATING_MODELS.get("bradley_terry"), RATING_MODELS.get("davidson")
MODELS, PAIRS = 12, 3000


def campaign(votes, seed=0, good=True):
    """Battles of PAIRS pairs, of which some have a vote, predictions, and the ratings that all pairs' votes would give.

    The pairs differ by more than their models. Good predictions know most of it, and err by a bias for each model.
    """
    rng = np.random.default_rng(seed)
    strengths = rng.normal(scale=0.8, size=MODELS)
    first = rng.integers(0, MODELS, PAIRS)
    second = (first + rng.integers(1, MODELS, PAIRS)) % MODELS
    answer = rng.normal(scale=2.0, size=PAIRS)
    chances = probabilities_of(DAVIDSON, strengths[first] - strengths[second] + answer, -0.5)
    counts = draw_votes(chances, rng)
    counts[rng.permutation(PAIRS) >= votes] = 0
    seen = strengths + rng.normal(scale=0.2, size=MODELS)
    predicted = probabilities_of(DAVIDSON, seen[first] - seen[second] + answer, -0.5)
    if not good:
        predicted = rng.dirichlet([2, 2, 2], size=PAIRS)
    ratings = fit_ratings(make_battles(MODELS, first, second, chances), DAVIDSON, shrinkage=0.0).ratings
    return make_battles(MODELS, first, second, counts), predicted, ratings


def error(fit, ratings):
    return float(np.sqrt(((fit.ratings - ratings) ** 2).mean()))


@pytest.mark.parametrize("method", ["powered", "hierarchical"])
def test_good_predictions_make_ratings_more_exact(method):
    gains, hits = [], []
    for seed in range(5):
        battles, predicted, ratings = campaign(600, seed)
        voted = battles.take(battles.votes > 0)
        alone = fit_ratings(voted, DAVIDSON, clusters="prompts")
        fit = (powered_ratings if method == "powered" else hierarchical_ratings)(battles, predicted, DAVIDSON).fit
        gains.append(error(alone, ratings) - error(fit, ratings))
        half = fit.quantile * np.sqrt(np.diag(fit.rating_covariance))
        hits.append((np.abs(fit.ratings - ratings) <= half).mean())
        assert equivalent_votes(fit, alone, 600) > 700
    assert np.mean(gains) > 0.01
    assert np.mean(hits) > 0.85


@pytest.mark.parametrize("method", ["powered", "hierarchical"])
def test_predictions_of_nothing_leave_ratings_of_votes(method):
    battles, predicted, ratings = campaign(2500, good=False)
    alone = fit_ratings(battles.take(battles.votes > 0), DAVIDSON, clusters="prompts")
    fit = (powered_ratings if method == "powered" else hierarchical_ratings)(battles, predicted, DAVIDSON).fit
    assert error(fit, ratings) < 1.2 * error(alone, ratings) + 0.01
    assert np.abs(fit.ratings - alone.ratings).max() < 0.2


def test_the_powered_share_is_0_for_noise_and_high_for_good_predictions():
    shares = []
    for good in (False, True):
        battles, predicted, _ = campaign(600, good=good)
        shares.append(powered_ratings(battles, predicted, DAVIDSON).share)
    assert shares[0] < 0.15
    assert shares[1] > 0.3


def test_with_a_share_of_0_powered_is_votes_alone():
    battles, _, _ = campaign(600)
    flat = np.full((PAIRS, 3), 1 / 3)
    powered = powered_ratings(battles, flat, BT, shrinkage=0.5)
    voted = battles.take(battles.votes > 0)
    alone = fit_ratings(voted, BT, shrinkage=0.5, clusters="prompts")
    if powered.share == 0:
        np.testing.assert_allclose(powered.fit.ratings, alone.ratings, atol=1e-6)
    # Predictions that are the same for all models say nothing of them.
    assert np.abs(powered.fit.ratings - alone.ratings).max() < 0.05


def test_without_ties_two_outcomes_are_rated():
    battles, predicted, _ = campaign(600)
    counts = battles.counts.copy()
    counts[:, 2] = 0
    without = predicted.copy()
    without[:, 2] = 0
    without /= without.sum(axis=1, keepdims=True)
    for model in (BT, DAVIDSON):
        fit = hierarchical_ratings(battles.with_counts(counts), without, model).fit
        assert np.isfinite(fit.ratings).all()
        assert np.isfinite(fit.covariance).all()
    # Predictions that are worse than none: a power below 0 must not make ties certain.
    wrong = hierarchical_ratings(battles.with_counts(counts), without[:, [1, 0, 2]], BT)
    assert wrong.power < 0
    assert np.isfinite(wrong.fit.covariance).all()
    assert wrong.expected[:, 2].max() == 0


def test_settings_of_votes_alone_are_refused_with_predictions():
    for given in ({"weights": "pairs"}, {"style": ["length"]}, {"intervals": "bootstrap"}):
        with pytest.raises(ValueError, match="is for ratings from votes alone"):
            Leaderboard(method="powered", **given)
        assert Leaderboard(**given).for_votes_alone


def test_the_method_that_predicts_held_out_votes_best_is_the_default():
    settings = Leaderboard(model="davidson")
    chosen = {}
    for good in (True, False):
        battles, predicted, _ = campaign(250, seed=3, good=good)
        inputs = RatingInputs(battles, predicted, np.where(battles.votes > 0, np.arange(PAIRS) % 10, -1))
        scores = compare_methods(inputs, settings)
        assert scores["votes"].gain == 0
        chosen[good] = best_method(scores)
        assert all(score.log_loss > 0 for score in scores.values())
    assert chosen[True] != "votes"


def test_a_rating_without_a_win_is_finite_and_said():
    battles = make_battles(3, [0, 0, 1], [1, 2, 2], [[5, 0, 0], [5, 0, 0], [3, 3, 0]])
    inputs = RatingInputs(battles, None, np.arange(3))
    rated = rate("votes", inputs, Leaderboard(shrinkage=0.0))
    assert np.isfinite(rated.fit.ratings).all()
    assert "infinite" in rated.remarks[0]
    assert rate("votes", inputs, Leaderboard(shrinkage="auto")).remarks == ()
