import dataclasses

import numpy as np
import pytest

from core.registry import RATING_MODELS
from leaderboard.bootstrap import bootstrap_fit
from leaderboard.fit import Likelihood, fit_ratings, pair_weights
from leaderboard.ranks import simultaneous_ranks
from tests.helpers.battles import draw_battles, make_battles

BT, DAVIDSON = RATING_MODELS.get("bradley_terry"), RATING_MODELS.get("davidson")
NAMES = RATING_MODELS.names()


def drawn(size=400, models=5, seed=0, name="davidson"):
    rng = np.random.default_rng(seed)
    return draw_battles(rng.normal(size=models), size, RATING_MODELS.get(name), -0.5, rng)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("styles", [0, 2])
def test_gradient_and_hessian_by_finite_differences(name, styles):
    battles = drawn(60)
    style = np.random.default_rng(1).normal(size=(60, styles))
    likelihood = Likelihood(dataclasses.replace(battles, style=style), RATING_MODELS.get(name))
    point = np.random.default_rng(2).normal(scale=0.3, size=likelihood.size)
    steps = np.eye(likelihood.size) * 1e-5
    slopes = [(likelihood.value(point + step) - likelihood.value(point - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(likelihood.gradient(point), slopes, atol=1e-6)
    bends = [(likelihood.gradient(point + step) - likelihood.gradient(point - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(likelihood.hessian(point), -np.array(bends), atol=1e-6)


def test_three_models_that_meet_once_each_way_have_a_closed_form():
    """A cycle of wins: by symmetry all three are equal, and nu follows from the share of ties."""
    battles = make_battles(3, [0, 1, 2], [1, 2, 0], [[3, 1, 2]] * 3)
    fit = fit_ratings(battles, DAVIDSON, shrinkage=0.0)
    np.testing.assert_allclose(fit.ratings, 0, atol=1e-9)
    # P(tie) = nu / (2 + nu) between equals, and a third of the votes are ties.
    np.testing.assert_allclose(np.exp(fit.tie), 1.0, rtol=1e-5)


def test_davidson_on_a_star_of_three_models_has_a_closed_form():
    """m1 and m2 meet m0 only, so each difference is its own two-model problem with a common nu."""
    battles = make_battles(3, [0, 0], [1, 2], [[8, 2, 4], [2, 8, 4]])
    fit = fit_ratings(battles, DAVIDSON, shrinkage=0.0)
    # With w wins of one and l of the other, exp(d) = w / l, and nu = ties / sqrt(w l).
    np.testing.assert_allclose(fit.ratings[0] - fit.ratings[1], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(fit.ratings[2] - fit.ratings[0], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(np.exp(fit.tie), 4 / np.sqrt(16), rtol=1e-5)


def test_two_models_have_the_log_odds_and_their_standard_error():
    fit = fit_ratings(make_battles(2, [0], [1], [[30, 10, 0]]), BT, shrinkage=0.0)
    np.testing.assert_allclose(fit.ratings[0] - fit.ratings[1], np.log(3))
    np.testing.assert_allclose(fit.difference_errors()[0, 1], np.sqrt(1 / 30 + 1 / 10))
    assert fit.win_rates()[0, 1] == pytest.approx(0.75)


@pytest.mark.parametrize("name", NAMES)
def test_one_record_or_many_give_the_same_fit(name):
    battles = drawn(300, name="rao_kupper")
    whole = fit_ratings(battles, RATING_MODELS.get(name), shrinkage=0.5)
    paired = fit_ratings(battles.by_pair(), RATING_MODELS.get(name), shrinkage=0.5)
    np.testing.assert_allclose(whole.ratings, paired.ratings, atol=1e-8)
    np.testing.assert_allclose(whole.covariance, paired.covariance, atol=1e-8)


def test_exchanging_sides_changes_nothing():
    battles = drawn(200)
    turned = dataclasses.replace(
        battles, first=battles.second, second=battles.first, counts=battles.counts[:, [1, 0, 2]]
    )
    one, other = (fit_ratings(each, DAVIDSON) for each in (battles, turned))
    np.testing.assert_allclose(one.ratings, other.ratings, atol=1e-6)


def test_prompts_of_one_record_each_are_like_votes():
    battles = drawn(500)
    by_votes = fit_ratings(battles, BT, shrinkage=0.0)
    by_prompts = fit_ratings(battles, BT, shrinkage=0.0, clusters="prompts")
    np.testing.assert_allclose(by_prompts.covariance, by_votes.covariance * 500 / 499, atol=1e-9)


def test_copied_votes_of_a_prompt_do_not_narrow_its_intervals():
    battles = drawn(300)
    copied = battles.take(np.repeat(np.arange(300), 4))
    one = fit_ratings(battles, BT, shrinkage=0.0, clusters="prompts")
    four = fit_ratings(copied, BT, shrinkage=0.0, clusters="prompts")
    np.testing.assert_allclose(four.covariance, one.covariance, atol=1e-8)
    votes = fit_ratings(copied, BT, shrinkage=0.0)
    assert votes.difference_errors()[0, 1] < 0.6 * four.difference_errors()[0, 1]


def test_style_takes_its_part_of_the_votes():
    """The longer answer wins by itself; m1 writes longer answers and is no better."""
    rng = np.random.default_rng(3)
    first, second = np.repeat([0, 1, 0], 700), np.repeat([1, 2, 2], 700)
    length = rng.normal(size=2100) + np.where(first == 1, 1.0, np.where(second == 1, -1.0, 0.0))
    won = rng.random(2100) < 1 / (1 + np.exp(-1.5 * length))
    counts = np.stack([won, ~won, np.zeros(2100)], axis=1)
    plain = fit_ratings(make_battles(3, first, second, counts), BT, shrinkage=0.0)
    styled = fit_ratings(make_battles(3, first, second, counts, style=length[:, None]), BT, shrinkage=0.0)
    assert plain.ratings[1] - plain.ratings[0] > 0.8
    assert abs(styled.ratings[1] - styled.ratings[0]) < 0.35
    assert styled.style[0] == pytest.approx(1.5, abs=0.2)


def test_few_votes_are_pulled_to_the_mean_and_many_are_not():
    rng = np.random.default_rng(5)
    ratings = rng.normal(scale=0.7, size=10)
    few, many = (draw_battles(ratings, size, BT, 0.0, rng) for size in (60, 20_000))
    for battles, low, high in ((few, 0.1, 0.95), (many, 0.0, 0.02)):
        fit = fit_ratings(battles, BT)
        assert low < fit.shrinkage.mean() < high
    assert 1 < fit_ratings(many, BT).penalty < 5  # 1 / 0.7 squared is 2


def test_a_model_without_a_win_has_a_finite_rating_if_shrunken():
    fit = fit_ratings(make_battles(3, [0, 0, 1], [1, 2, 2], [[5, 0, 0], [5, 0, 0], [3, 3, 0]]), BT)
    assert np.isfinite(fit.ratings).all()
    assert fit.ratings[0] == fit.ratings.max()
    assert np.isfinite(fit.covariance).all()


def test_pairs_count_alike_with_pair_weights():
    """One pair has 100 times the votes of another, of other results."""
    battles = make_battles(2, [0] * 3, [1] * 3, [[600, 400, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(pair_weights(battles), 1)
    cycle = make_battles(3, [0, 1, 2], [1, 2, 0], [[6000, 4000, 0], [60, 40, 0], [60, 40, 0]])
    weights = pair_weights(cycle)
    np.testing.assert_allclose(weights[0] * 10_000, weights[1] * 100)
    fit = fit_ratings(cycle, BT, shrinkage=0.0, weights=weights)
    np.testing.assert_allclose(fit.ratings, 0, atol=1e-6)
    assert abs(fit_ratings(cycle, BT, shrinkage=0.0).ratings).max() > 0.1


def test_bootstrap_and_sandwich_agree():
    battles = drawn(3000, models=4)
    fit = fit_ratings(battles, BT, shrinkage=0.0, clusters="prompts")
    resampled = bootstrap_fit(fit, battles, weights=None, style_penalty=0.0, repetitions=400, seed=0)
    np.testing.assert_allclose(resampled.difference_errors(), fit.difference_errors(), rtol=0.15, atol=1e-9)


def test_models_without_common_battles_are_not_compared():
    battles = make_battles(5, [0, 0, 3], [1, 2, 4], [[5, 3, 1], [4, 4, 2], [9, 1, 0]])
    fit = fit_ratings(battles, BT)
    assert fit.components.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose([fit.ratings[:3].sum(), fit.ratings[3:].sum()], 0, atol=1e-9)
    assert np.isnan(fit.win_rates()[0, 3])
    ranks = simultaneous_ranks(fit)
    assert sorted(ranks.rank[:3].tolist()) == [1, 2, 3]
    assert sorted(ranks.rank[3:].tolist()) == [1, 2]
    assert ranks.upper[3:].max() == 2


def test_ranks_are_certain_with_many_votes_and_open_with_few():
    rng = np.random.default_rng(0)
    ratings = np.array([2.0, 1.0, 0.0, -1.0])
    many = simultaneous_ranks(fit_ratings(draw_battles(ratings, 20_000, BT, 0.0, rng), BT))
    few = simultaneous_ranks(fit_ratings(draw_battles(ratings, 12, BT, 0.0, rng), BT))
    assert many.rank.tolist() == many.lower.tolist() == many.upper.tolist() == [1, 2, 3, 4]
    assert (few.upper - few.lower).mean() > 2
