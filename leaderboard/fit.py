"""Fit ratings to battles by penalized maximum likelihood, with the covariance of their errors.

The parameters are the ratings (m,), the coefficients of style (f,) and the tie parameter, in this order. Ratings are in
log-odds, with mean 0 over models that are connected by battles. The penalty pulls them to this mean; it is a normal
prior with variance 1 / penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from leaderboard.connectivity import components_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.arrays import Doubles, Rows
    from leaderboard.battles import Battles
    from leaderboard.rating_model import RatingModel

Clusters = Literal["prompts", "votes"]
_STEPS: Final = 100
_TOLERANCE: Final = 1e-11  # of a step, relative to the parameters
_TIE_PRIOR: Final = 1e-6  # keeps the tie parameter finite where nobody voted tie, and is negligible next to a vote
_LEAST_PENALTY, _MOST_PENALTY = 0.01, 1e4  # standard deviations of ratings from 10 to 0.01, in log-odds
_WEAK_PENALTY: Final = 0.1
_LEAST_BEND: Final = 0.25  # of the evidence: the logarithm of a penalty is known to a factor of e squared at worst
PAIR_VOTES_FLOOR: Final = 50  # as in arena-rank 0.1.1: pairs with fewer votes do not count more


@dataclass(frozen=True)
class RatingFit:
    """Fitted ratings and the covariance of all parameters."""

    model: RatingModel
    ratings: Doubles  # (m,)
    style: Doubles  # (f,)
    tie: float
    penalty: float
    prior_variance: float  # of ratings before any vote; infinite without a penalty
    components: Rows  # (m,) models of one component are comparable
    covariance: Doubles  # (p, p) of the errors of all parameters
    information: Doubles  # (m,) diagonal of the Hessian of the ratings, without the penalty
    degrees: float  # of freedom of the covariance: clusters less 1, or infinite

    @property
    def rating_covariance(self) -> Doubles:
        """The covariance of the ratings (m, m)."""
        count = len(self.ratings)
        return self.covariance[:count, :count]

    @property
    def shrinkage(self) -> Doubles:
        """How far each rating is pulled to the mean (m,): 0 is not at all, 1 is all the way."""
        total = self.information + self.penalty
        return np.divide(self.penalty, total, out=np.ones(len(total)), where=total > 0)

    @property
    def quantile(self) -> float:
        """The 97.5% quantile of a standardized error: Student's t with the degrees of freedom of the covariance."""
        from scipy.stats import norm, t

        return float(norm.ppf(0.975) if np.isinf(self.degrees) else t.ppf(0.975, self.degrees))

    def win_rates(self) -> Doubles:
        """Return the expected score (m, m) of each model against each other; nan where they are not comparable."""
        differences = self.ratings[:, None] - self.ratings[None, :]
        rates = self.model.win_rates(differences.ravel(), self.tie).reshape(differences.shape)
        return np.where(self.components[:, None] == self.components[None, :], rates, np.nan)

    def difference_errors(self) -> Doubles:
        """Return the standard errors (m, m) of differences of ratings."""
        covariance = self.rating_covariance
        variances = np.diag(covariance)
        squared = variances[:, None] + variances[None, :] - 2 * covariance
        errors: Doubles = np.sqrt(np.maximum(squared, 0.0))
        return errors


@dataclass(frozen=True)
class Optimum:
    """The optimum: parameters (p,), log-likelihood without the penalty, and its negative Hessian with it."""

    parameters: Doubles
    log_likelihood: float
    hessian: Doubles


class Likelihood:
    """The weighted log-likelihood of battles under a rating model."""

    def __init__(self, battles: Battles, model: RatingModel, style_penalty: float = 0.0) -> None:
        self.battles, self.model = battles, model
        self.count, self.styles = len(battles.models), battles.style.shape[1]
        self.components = components_of(battles)
        self.has_tie = model.has_tie_parameter and battles.counts[:, 2].sum() > 0
        self.size = self.count + self.styles + self.has_tie
        # As in arena-rank, whose loss is a mean over votes.
        self.style_ridge = style_penalty * battles.counts.sum()
        self._gauge = _gauge(self.components)

    def split(self, parameters: Doubles) -> tuple[Doubles, float]:
        """Return the differences (n,) and the tie parameter."""
        battles = self.battles
        ratings, style = parameters[: self.count], parameters[self.count : self.count + self.styles]
        differences = ratings[battles.first] - ratings[battles.second]
        if self.styles:
            differences = differences + battles.style @ style
        # Without votes for ties the parameter has no value; this one makes ties as good as impossible.
        return differences, float(parameters[-1]) if self.has_tie else -30.0

    def value(self, parameters: Doubles) -> float:
        """Return the log-likelihood."""
        logs = self.model.log_probabilities(*self.split(parameters))
        return float((self.battles.counts * logs).sum())

    def gradient(self, parameters: Doubles) -> Doubles:
        """Return the gradient (p,) of the log-likelihood."""
        scores = self.model.scores(*self.split(parameters))
        return self.pull(
            (self.battles.counts * scores.difference).sum(axis=1), (self.battles.counts * scores.tie).sum()
        )

    def pull(self, by_difference: Doubles, by_tie: float) -> Doubles:
        """Return the gradient (p,) from derivatives by the differences (n,) and by the tie parameter."""
        battles = self.battles
        ratings = np.bincount(battles.first, by_difference, self.count)
        ratings -= np.bincount(battles.second, by_difference, self.count)
        tie = np.full(int(self.has_tie), by_tie)
        return np.concatenate([ratings, battles.style.T @ by_difference, tie])

    def hessian(self, parameters: Doubles) -> Doubles:
        """Return the negative Hessian (p, p) of the log-likelihood."""
        curvature = self.model.curvature(*self.split(parameters), self.battles.counts)
        return self.spread(curvature.difference, curvature.cross, float(curvature.tie.sum()))

    def spread(self, difference: Doubles, cross: Doubles, tie: float) -> Doubles:
        """Return the matrix (p, p) of products of derivatives: by difference (n,), with the tie (n,), by the tie."""
        battles, m, f = self.battles, self.count, self.styles
        matrix = np.zeros((self.size, self.size))
        flat = np.bincount(battles.first * m + battles.second, difference, m * m).reshape(m, m)
        off = flat + flat.T
        matrix[:m, :m] = np.diag(off.sum(axis=1)) - off
        if f:
            weighted = battles.style * difference[:, None]
            with_ratings = np.stack(
                [
                    np.bincount(battles.first, column, m) - np.bincount(battles.second, column, m)
                    for column in weighted.T
                ],
                axis=1,
            )
            matrix[:m, m : m + f] = with_ratings
            matrix[m : m + f, :m] = with_ratings.T
            matrix[m : m + f, m : m + f] = weighted.T @ battles.style
        if self.has_tie:
            column = self.pull(cross, tie)
            matrix[-1, :], matrix[:, -1] = column, column
        return matrix

    def penalties(self, penalty: float) -> Doubles:
        """Return the penalty of each parameter (p,)."""
        parts = [np.full(self.count, penalty), np.full(self.styles, self.style_ridge)]
        return np.concatenate([*parts, [_TIE_PRIOR] if self.has_tie else []])

    def maximize(self, penalty: float, start: Doubles | None = None) -> Optimum:
        """Return the maximum by Newton's method, with steps halved until the likelihood grows."""
        ridge = self.penalties(penalty)
        point = self.start() if start is None else start

        def objective(parameters: Doubles) -> float:
            return self.value(parameters) - float(ridge @ parameters**2) / 2

        current = objective(point)
        for _ in range(_STEPS):
            hessian = self.hessian(point) + np.diag(ridge)
            slope = self.gradient(point) - ridge * point
            step = np.linalg.solve(hessian + self.gauge(hessian), slope)
            if step @ slope < 0:  # not concave here: go uphill
                step = slope / max(np.abs(np.diag(hessian)).max(), 1e-12)
            step *= min(1.0, 5.0 / max(np.abs(step).max(), 1e-300))
            for _ in range(30):
                candidate = objective(point + step)
                if candidate >= current - 1e-12 * abs(current):
                    break
                step /= 2
            point, current = point + step, candidate
            if np.abs(step).max() < _TOLERANCE * max(1.0, float(np.abs(point).max())):
                break
        return Optimum(point, self.value(point), self.hessian(point) + np.diag(ridge))

    def start(self) -> Doubles:
        """Return the parameters (p,) that optimizers start from."""
        parameters = np.zeros(self.size)
        if self.has_tie:
            parameters[-1] = self.model.tie_start
        return parameters

    def gauge(self, hessian: Doubles) -> Doubles:
        """Return a matrix (p, p) that fixes each component's mean and changes nothing else."""
        matrix = np.zeros_like(hessian)
        matrix[: self.count, : self.count] = self._gauge * max(float(np.diag(hessian)[: self.count].mean()), 1e-12)
        return matrix

    def invert(self, hessian: Doubles) -> Doubles:
        """Return the inverse (p, p) among ratings with mean 0 in each component."""
        inverse = np.linalg.inv(hessian + self.gauge(hessian))
        m = self.count
        center = np.eye(self.size)
        center[:m, :m] -= self._gauge
        centered: Doubles = center @ inverse @ center
        return centered

    def meat_of_votes(self, parameters: Doubles, weights: Doubles) -> Doubles:
        """Return the sum (p, p) of outer products of the votes' scores; `weights` (n,) are those of one vote."""
        scores = self.model.scores(*self.split(parameters))
        counts = self.battles.counts * weights[:, None]  # a vote's score has the weight, its square has it twice
        return self.spread(
            (counts * scores.difference**2).sum(axis=1),
            (counts * scores.difference * scores.tie).sum(axis=1),
            float((counts * scores.tie**2).sum()),
        )

    def meat_of_groups(self, parameters: Doubles) -> tuple[Doubles, int]:
        """Return the sum (p, p) of outer products of the prompts' scores, and the number of prompts."""
        scores = self.model.scores(*self.split(parameters))
        counts = self.battles.counts
        totals = self.group_sums((counts * scores.difference).sum(axis=1), (counts * scores.tie).sum(axis=1))
        groups = totals.shape[0]
        product: Doubles = (totals.T @ totals).toarray()
        return product * groups / max(groups - 1, 1), groups

    def group_sums(self, by_difference: Doubles, by_tie: Doubles) -> Any:  # noqa: ANN401 - a sparse matrix
        """Return the sums (g, p) over prompts of derivatives (n,), as a sparse matrix."""
        import scipy.sparse

        battles = self.battles
        names, group = np.unique(battles.groups, return_inverse=True)
        columns = [battles.first, battles.second]
        values = [by_difference, -by_difference]
        for n in range(self.styles):
            columns.append(np.full(len(battles), self.count + n))
            values.append(by_difference * battles.style[:, n])
        if self.has_tie:
            columns.append(np.full(len(battles), self.size - 1))
            values.append(by_tie)
        places = (np.tile(group, len(columns)), np.concatenate(columns))
        return scipy.sparse.csr_matrix((np.concatenate(values), places), shape=(len(names), self.size))


def fit_ratings(
    battles: Battles,
    model: RatingModel,
    *,
    shrinkage: float | None = None,
    clusters: Clusters = "votes",
    weights: Doubles | None = None,
    style_penalty: float = 0.0,
) -> RatingFit:
    """Return the fitted ratings.

    `shrinkage` is the penalty; None learns it from the votes. `weights` (n,) are those of one vote of each record.
    The covariance is the sandwich of White 1980 by votes, or by prompts with Liang and Zeger 1986. The penalty adds the
    variance of what it pulls to the mean, and its own uncertainty where it is learned.
    """
    if clusters == "votes" and weights is None and not battles.style.shape[1]:
        battles = battles.by_pair()
    weights = np.ones(len(battles)) if weights is None else weights
    weighted = battles.with_counts(battles.counts * weights[:, None])
    rows = Likelihood(weighted, model, style_penalty)
    # Without style a pair's votes have one difference: ten million votes take 30 s by pairs, and 190 s by rows.
    likelihood = rows if battles.style.shape[1] else Likelihood(weighted.by_pair(), model)

    def meat_at(parameters: Doubles) -> tuple[Doubles, float]:
        if clusters == "votes":
            return rows.meat_of_votes(parameters, weights), np.inf
        meat, groups = rows.meat_of_groups(parameters)
        return meat, float(max(groups - 1, 1))

    prior = Prior(shrinkage) if shrinkage is not None else learn_prior(likelihood, lambda point: meat_at(point)[0])
    optimum = likelihood.maximize(prior.penalty)
    meat, degrees = meat_at(optimum.parameters)
    return make_fit(likelihood, optimum, meat, prior, degrees)


@dataclass(frozen=True)
class Prior:
    """The penalty on ratings, and what is known of it."""

    penalty: float  # of the log-likelihood
    dispersion: float = 1.0  # variance of the votes' scores over that of the rating model
    variance: float = 0.0  # of the logarithm of the penalty


def make_fit(likelihood: Likelihood, optimum: Optimum, meat: Doubles, prior: Prior, degrees: float) -> RatingFit:
    """Return a fit from an optimum and the covariance `meat` (p, p) of the gradient."""
    m, f = likelihood.count, likelihood.styles
    parameters, hessian, penalty = optimum.parameters, optimum.hessian, prior.penalty
    inverse = likelihood.invert(hessian)
    pull = np.concatenate([np.full(m, penalty * prior.dispersion), np.zeros(len(parameters) - m)])
    # What a change of the logarithm of the penalty does to the parameters.
    change = inverse @ np.concatenate([penalty * parameters[:m], np.zeros(len(parameters) - m)])
    return RatingFit(
        model=likelihood.model,
        ratings=parameters[:m],
        style=parameters[m : m + f],
        tie=likelihood.split(parameters)[1],
        penalty=penalty,
        prior_variance=prior.dispersion / penalty if penalty else np.inf,
        components=likelihood.components,
        covariance=inverse @ (meat + np.diag(pull)) @ inverse + prior.variance * np.outer(change, change),
        information=np.diag(hessian)[:m] - penalty,
        degrees=degrees,
    )


def learn_prior(likelihood: Likelihood, meat_at: Callable[[Doubles], Doubles]) -> Prior:
    """Return the prior with the greatest posterior density, by Laplace's approximation of the evidence.

    Empirical Bayes (Efron and Morris 1975), with a half-normal prior of scale 1 on the ratings' standard deviation:
    few votes do not decide that all models are equal. The log-likelihood is divided by the dispersion of the votes'
    scores (McCullagh and Nelder 1989): half wins vary less than wins, and votes on one prompt err together.
    """
    from scipy.optimize import minimize_scalar

    free = likelihood.count - len(np.unique(likelihood.components))
    weak = likelihood.maximize(_WEAK_PENALTY)
    inverse = likelihood.invert(weak.hessian)[: likelihood.count, : likelihood.count]
    meat = meat_at(weak.parameters)[: likelihood.count, : likelihood.count]
    # inverse @ (hessian - penalty) has the trace `free` without the penalty.
    seen = free - _WEAK_PENALTY * float(np.trace(inverse))
    dispersion = float(np.clip(np.trace(inverse @ meat) / max(seen, 1e-9), 0.2, 20.0)) if free else 1.0
    point = [weak.parameters]

    def loss(log_penalty: float) -> float:
        penalty = float(np.exp(log_penalty))
        optimum = likelihood.maximize(penalty, point[0])
        point[0] = optimum.parameters
        return -(evidence_of(likelihood, optimum, penalty, dispersion) + _prior_density(penalty / dispersion))

    bounds = (float(np.log(_LEAST_PENALTY)), float(np.log(_MOST_PENALTY)))
    best = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.02}).x)
    step = 0.5
    bend = (loss(best + step) + loss(best - step) - 2 * loss(best)) / step**2
    return Prior(float(np.exp(best)), dispersion, 1 / max(bend, _LEAST_BEND))


def evidence_of(likelihood: Likelihood, optimum: Optimum, penalty: float, dispersion: float) -> float:
    """Return the logarithm of the marginal likelihood of the votes, up to a constant."""
    ratings = optimum.parameters[: likelihood.count]
    free = likelihood.count - len(np.unique(likelihood.components))
    _, determinant = np.linalg.slogdet(optimum.hessian)
    # Ratings of mean 0 are what the penalty is on; the means themselves add the same factor to both.
    means = likelihood.count - free
    inner = free * np.log(penalty) - (determinant - means * np.log(penalty))
    fitted = optimum.log_likelihood - penalty * float(ratings @ ratings) / 2
    return float(fitted / dispersion + inner / 2)


def _prior_density(penalty: float) -> float:
    """Return the logarithm of the prior density of the penalty, over its logarithm."""
    return float(-1 / (2 * penalty) - np.log(penalty) / 2)


def pair_weights(battles: Battles) -> Doubles:
    """Return the weights (n,) of votes that make pairs of models count alike, with mean 1 over the votes.

    A vote weighs the inverse of its pair's votes, of which at least PAIR_VOTES_FLOOR are counted.
    """
    pair, low, _ = battles.pair_index()
    votes = np.bincount(pair, battles.votes, len(low))
    weights = 1 / np.maximum(votes[pair], PAIR_VOTES_FLOOR)
    scaled: Doubles = weights / np.average(weights, weights=battles.votes)
    return scaled


def _gauge(components: Rows) -> Doubles:
    """Return the projection (m, m) on the means of components."""
    same = (components[:, None] == components[None, :]).astype(float)
    projection: Doubles = same / same.sum(axis=1, keepdims=True)
    return projection
