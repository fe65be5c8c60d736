"""Rate models by predictions that votes correct model by model: a hierarchical model with predictions as its prior.

The outcome of a record has the predicted probabilities to a power, tilted by how much better or worse than predicted
its two models are: P(outcome) is proportional to p^s exp(pull (u_first - u_second) + tie b), with the pulls of Davidson
1970: 1/2, -1/2 and 0. The deviations u of models are normal around c g, where g are the models' ratings by predictions
alone: calibrated predictions of single records, averaged, differ less between models than votes do (Mundlak 1978, "On
the pooling of time series and cross section data"). The standard deviation around c g is not chosen: results are
averaged over it, by how well each explains the votes. So few votes change the predictions little, and many votes decide
alone. The ratings are those of the rating model on the expected outcomes of all records, voted or not.

It needs predictions by models that did not see the record's votes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from core.registry import RATING_MODELS
from leaderboard.fit import Likelihood, RatingFit

if TYPE_CHECKING:
    from core.arrays import Doubles, Mask, Probabilities
    from leaderboard.battles import Battles
    from leaderboard.fit import Clusters
    from leaderboard.rating_model import RatingModel

_PULLS: Final = np.array([0.5, -0.5, 0.0])
_FLOOR: Final = 1e-4  # of a predicted probability
# Standard deviations of the deviations, in log-odds: from hardly any to more than ratings themselves vary.
_DEVIATIONS: Final = np.geomspace(0.03, 2.0, 14)
_SCALE: Final = 1.0  # of the half-normal prior on the standard deviation: ratings seldom differ more
_POWER_DEVIATION: Final = 0.5  # of the normal prior on the power s, around 1: calibrated predictions need no power
_TIE_DEVIATION: Final = 10.0  # of the prior on the tie's b: none to speak of
_SPREAD_DEVIATION: Final = 2.0  # of the prior on c, around 0
_STEPS: Final = 60


@dataclass(frozen=True)
class HierarchicalRatings:
    """Ratings by predictions and votes, and what the votes changed."""

    fit: RatingFit
    power: float  # s: below 1 if predictions were too sure
    spread: float  # c: how much more models differ than predictions say
    deviation: float  # posterior mean of the standard deviation of the models' deviations
    expected: Probabilities  # (n, 3) of all records


@dataclass(frozen=True)
class _Posterior:
    """The posterior with one standard deviation: parameters (u - c g, s, b, c), their covariance, log evidence."""

    parameters: Doubles
    covariance: Doubles
    evidence: float


def hierarchical_ratings(
    battles: Battles, predicted: Probabilities, model: RatingModel, *, clusters: Clusters = "prompts"
) -> HierarchicalRatings:
    """Return ratings from battles and their predicted outcomes (n, 3)."""
    has_ties = bool(battles.counts[:, 2].any())
    logs = np.log(np.maximum(predicted, _FLOOR))
    given = _Given(battles, logs, _predicted_ratings(battles, predicted), has_ties)
    voted = np.asarray(battles.votes > 0)
    posteriors = [_fit_tilt(given.take(voted), deviation, clusters) for deviation in _DEVIATIONS]
    densities = np.array([posterior.evidence for posterior in posteriors])
    # The prior of the deviation, over its logarithm, in which the grid is even.
    densities += -((_DEVIATIONS / _SCALE) ** 2) / 2 + np.log(_DEVIATIONS)
    shares = np.exp(densities - densities.max())
    shares /= shares.sum()
    results = [_rate(given, posterior, model) for posterior in posteriors]
    parameters = np.stack([ratings for ratings, _, _ in results])
    mean = shares @ parameters
    spread = parameters - mean
    covariance = sum(share * each for share, (_, each, _) in zip(shares, results, strict=True))
    covariance = covariance + np.einsum("l,lp,lq->pq", shares, spread, spread)
    expected = np.einsum("l,lnk->nk", shares, np.stack([tilted for _, _, tilted in results]))
    likelihood = Likelihood(battles.with_counts(expected), model)
    groups = len(np.unique(battles.groups[voted]))
    m = likelihood.count
    fit = RatingFit(
        model=model,
        ratings=mean[:m],
        style=np.empty(0),
        tie=likelihood.split(mean)[1],
        penalty=0.0,
        prior_variance=np.inf,
        components=likelihood.components,
        covariance=covariance,
        information=np.diag(likelihood.hessian(mean))[:m],
        degrees=float(max(groups - 1, 1)) if clusters == "prompts" else np.inf,
    )
    power, _, spread_of_models = shares @ np.stack([posterior.parameters[m:] for posterior in posteriors])
    return HierarchicalRatings(fit, float(power), float(spread_of_models), float(shares @ _DEVIATIONS), expected)


@dataclass(frozen=True)
class _Given:
    """Battles with the logarithms (n, 3) of their predictions, and the models' ratings (m,) by predictions alone."""

    battles: Battles
    logs: Doubles
    ratings: Doubles
    has_ties: bool  # whether anybody voted tie; else no tie is expected

    @property
    def lead(self) -> Doubles:
        """The first model's lead (n,) by predictions alone."""
        return self.ratings[self.battles.first] - self.ratings[self.battles.second]

    def take(self, rows: Mask) -> _Given:
        """Return some records."""
        return dataclasses.replace(self, battles=self.battles.take(rows), logs=self.logs[rows])


def _predicted_ratings(battles: Battles, predicted: Probabilities) -> Doubles:
    """Return the Bradley-Terry ratings (m,) on predictions alone."""
    likelihood = Likelihood(battles.with_counts(predicted).by_pair(), RATING_MODELS.get("bradley_terry"))
    return likelihood.maximize(0.0).parameters[: likelihood.count]


def _tilt(given: _Given, parameters: Doubles) -> Probabilities:
    """Return the probabilities (n, 3) with parameters (u - c g, s, b, c)."""
    from scipy.special import softmax

    battles, m = given.battles, len(given.battles.models)
    power, tie, spread = parameters[m:]
    lead = parameters[battles.first] - parameters[battles.second] + spread * given.lead
    scores = given.logs * power + lead[:, None] * _PULLS
    scores[:, 2] = scores[:, 2] + tie if given.has_ties else -np.inf
    return np.asarray(softmax(scores, axis=1))


class _Moves(NamedTuple):
    """Derivatives (n, 3) of the logarithms of the outcomes' probabilities."""

    lead: Doubles
    power: Doubles
    tie: Doubles
    spread: Doubles


def _moves(given: _Given, chances: Probabilities) -> _Moves:
    ties = np.array([0.0, 0.0, 1.0])
    lead = _PULLS - (chances @ _PULLS)[:, None]
    power = given.logs - (chances * given.logs).sum(axis=1, keepdims=True)
    return _Moves(lead, power, ties - chances[:, 2:], lead * given.lead[:, None])


def _fit_tilt(seen: _Given, deviation: float, clusters: Clusters) -> _Posterior:
    """Return the posterior of the tilt from voted records, by Newton's method."""
    counts, votes, m = seen.battles.counts, seen.battles.votes, len(seen.battles.models)
    ratings = Likelihood(seen.battles, RATING_MODELS.get("bradley_terry"))
    center = np.concatenate([np.zeros(m), [1.0, 0.0, 0.0]])
    others = np.array([_POWER_DEVIATION, _TIE_DEVIATION, _SPREAD_DEVIATION])
    precision = np.concatenate([np.full(m, deviation**-2), others**-2])
    point = center.copy()

    def slopes(parameters: Doubles) -> Doubles:
        """Return derivatives (n, 4) of the log-likelihood by the lead, s, b and c."""
        moves = _moves(seen, _tilt(seen, parameters))
        return np.stack([(counts * move).sum(axis=1) for move in moves], axis=1)

    def hessian(parameters: Doubles) -> Doubles:
        """Return the negative Hessian (m + 3, m + 3) of the log-posterior."""
        chances = _tilt(seen, parameters)
        moves = _moves(seen, chances)
        products = np.einsum("ink,jnk,nk->ijn", np.stack(moves), np.stack(moves), chances * votes[:, None])
        matrix = np.diag(precision)
        matrix[:m, :m] += ratings.spread(products[0, 0], np.zeros(0), 0.0)
        for row in range(1, len(moves)):
            column = ratings.pull(products[0, row], 0.0)
            matrix[:m, m + row - 1] += column
            matrix[m + row - 1, :m] += column
        matrix[m:, m:] += products[1:, 1:].sum(axis=2)
        return matrix

    for _ in range(_STEPS):
        moved = slopes(point)
        gradient = np.concatenate([ratings.pull(moved[:, 0], 0.0), moved[:, 1:].sum(axis=0)])
        step = np.linalg.solve(hessian(point), gradient - precision * (point - center))
        point = point + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < 1e-9:
            break
    posterior = hessian(point)
    bread = np.linalg.inv(posterior)
    chances = np.maximum(_tilt(seen, point), 1e-300)
    evidence = float((counts * np.log(chances)).sum() - precision @ (point - center) ** 2 / 2)
    evidence += float(np.log(precision).sum() - np.linalg.slogdet(posterior)[1]) / 2
    meat = _meat(ratings, slopes(point), clusters)
    return _Posterior(point, bread @ (meat + np.diag(precision)) @ bread, evidence)


def _meat(ratings: Likelihood, slopes: Doubles, clusters: Clusters) -> Doubles:
    """Return the covariance (m + 3, m + 3) of the gradient, by prompts or by records."""
    import scipy.sparse

    battles = ratings.battles
    groups = battles.groups if clusters == "prompts" else np.arange(len(battles))
    names, group = np.unique(groups, return_inverse=True)
    by_model = dataclasses.replace(battles, groups=group)
    sums = Likelihood(by_model, ratings.model).group_sums(slopes[:, 0], slopes[:, 0])
    rest = np.stack([np.bincount(group, column, len(names)) for column in slopes[:, 1:].T], axis=1)
    scores = scipy.sparse.hstack([sums, scipy.sparse.csr_matrix(rest)]).tocsr()
    factor = len(names) / max(len(names) - 1, 1) if clusters == "prompts" else 1.0
    product: Doubles = (scores.T @ scores).toarray() * factor
    return product


def _rate(given: _Given, posterior: _Posterior, model: RatingModel) -> tuple[Doubles, Doubles, Probabilities]:
    """Return the rating model's parameters on the expected outcomes, their covariance, and the outcomes (n, 3)."""
    battles, m = given.battles, len(given.battles.models)
    chances = _tilt(given, posterior.parameters)
    likelihood = Likelihood(battles.with_counts(chances), model)
    compact = Likelihood(likelihood.battles.by_pair(), model)
    parameters = compact.maximize(0.0).parameters
    inverse = compact.invert(compact.hessian(parameters))
    scores = model.scores(*likelihood.split(parameters))
    jacobian = np.zeros((likelihood.size, m + 3))
    moves = _moves(given, chances)

    def pulled(move: Doubles) -> tuple[Doubles, Doubles]:
        change = chances * move
        return (change * scores.difference).sum(axis=1), (change * scores.tie).sum(axis=1)

    by_difference, by_tie = pulled(moves.lead)
    jacobian[:, :m] = likelihood.spread(by_difference, by_tie, 0.0)[:, :m]
    for column, move in enumerate(moves[1:], start=m):
        by_difference, by_tie = pulled(move)
        jacobian[:, column] = likelihood.pull(by_difference, float(by_tie.sum()))
    change = inverse @ jacobian
    return parameters, change @ posterior.covariance @ change.T, chances
