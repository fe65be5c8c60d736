"""Rate models by votes and predictions: the predictions of all records, corrected by those that have votes.

It is prediction-powered inference (Angelopoulos et al. 2023, "PPI++: efficient prediction-powered inference"). Its loss
is that of the votes, plus a share of the difference between the predictions' losses on all records and on the voted
ones. The ratings are those of all records, whatever the predictions are; good predictions make the intervals narrower.

It needs voted records that are a random sample of all, and predictions by models that did not see the record's votes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leaderboard.fit import Likelihood, Prior, RatingFit, learn_prior, make_fit

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities
    from leaderboard.battles import Battles
    from leaderboard.fit import Clusters
    from leaderboard.rating_model import RatingModel


@dataclass(frozen=True)
class PoweredRatings:
    """Ratings by votes and predictions, and the share of the predictions that they use: 0 is votes alone."""

    fit: RatingFit
    share: float


def powered_ratings(
    battles: Battles,
    predicted: Probabilities,
    model: RatingModel,
    *,
    shrinkage: float | None = None,
    clusters: Clusters = "prompts",
) -> PoweredRatings:
    """Return ratings from battles and their predicted outcomes (n, 3).

    Every record counts alike: one with several votes counts by their shares. The share of the predictions is that
    with the least mean variance of the ratings, between 0 and 1.
    """
    votes = battles.votes
    voted = votes > 0
    observed = np.divide(battles.counts, votes[:, None], out=np.zeros_like(battles.counts), where=voted[:, None])
    rate = voted.mean()  # all losses are scaled by it, so that information is counted in votes

    def mixed(share: float) -> Battles:
        return battles.with_counts(observed + share * (rate - voted)[:, None] * predicted)

    groups = battles if clusters == "prompts" else _each_alone(battles)
    alone = Likelihood(groups.with_counts(mixed(0.0).counts), model)
    prior = (
        Prior(shrinkage) if shrinkage is not None else learn_prior(alone, lambda point: alone.meat_of_groups(point)[0])
    )
    optimum = alone.maximize(prior.penalty)
    inverse = alone.invert(optimum.hessian)
    with_groups = Likelihood(groups.with_counts(observed), model)
    scores = model.scores(*with_groups.split(optimum.parameters))

    def sums(counts: Doubles) -> Doubles:
        by_tie = (counts * scores.tie).sum(axis=1)
        totals: Doubles = with_groups.group_sums((counts * scores.difference).sum(axis=1), by_tie) @ inverse
        return totals

    of_votes, of_predictions = sums(observed), sums((voted - rate)[:, None] * predicted)
    m = len(battles.models)
    spread = float((of_predictions[:, :m] ** 2).sum())
    share = float(np.clip((of_votes[:, :m] * of_predictions[:, :m]).sum() / spread, 0.0, 1.0)) if spread else 0.0

    likelihood = Likelihood(groups.with_counts(mixed(share).counts), model)
    optimum = likelihood.maximize(prior.penalty, optimum.parameters)
    meat, seen = likelihood.meat_of_groups(optimum.parameters)
    degrees = float(max(seen - 1, 1)) if clusters == "prompts" else np.inf
    return PoweredRatings(make_fit(likelihood, optimum, meat, prior, degrees), share)


def _each_alone(battles: Battles) -> Battles:
    """Return battles in which every record is a group."""
    return dataclasses.replace(battles, groups=np.arange(len(battles)))
