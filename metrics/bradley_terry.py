"""Fit Bradley-Terry models of pairwise votes on features of the answers.

The strength of an answer is a linear function of its features x: P(A wins) = 1 / (1 + exp(-(x_a - x_b) · beta))
(Bradley and Terry 1952). The arena's style control (Li, Angelopoulos and Chiang 2024, "Does style matter?
Disentangling style and substance in Chatbot Arena") fits it to four features of style: length in tokens, headers, list
items and bold spans. Each feature is the normalized difference (a - b) / (a + b), divided by its standard deviation.
The arena's model also has a strength for each model. This one has none, because predictions never know model names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Groups

_NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile
_RIDGE = 1e-2  # on half the squared length of beta: negligible next to the votes, but bounds beta if they are separable
_STEPS = 50


@dataclass(frozen=True)
class BradleyTerryFit:
    """Coefficients (d,) in log-odds of a win of A for each unit of the features, and their standard errors (d,)."""

    coefficients: Doubles
    standard_errors: Doubles

    def interval(self, n: int) -> tuple[float, float]:
        """Return the 95% interval of the n-th coefficient, by its normal approximation."""
        half = _NORMAL_95 * self.standard_errors[n]
        return float(self.coefficients[n] - half), float(self.coefficients[n] + half)


def fit_bradley_terry(
    differences: Doubles, wins: Doubles, groups: Groups, weights: Doubles | None = None
) -> BradleyTerryFit:
    """Fit by maximum likelihood: `differences` (n, d) of the features, `wins` (n,) of A from 0 to 1.

    `weights` (n,) are the votes of each row, 1 if not given. Newton's method maximizes the logistic log-likelihood.
    Half a win counts as half a record of either outcome (fractional logit: Papke and Wooldridge 1996). The standard
    errors are cluster-robust over `groups` (n,), the records of one prompt (Liang and Zeger 1986). Those of the Hessian
    would take half a win for as noisy as a win.
    """
    share = np.ones(len(wins)) if weights is None else weights
    beta = np.zeros(differences.shape[1])
    for _ in range(_STEPS):
        chance = _logistic(differences @ beta)
        gradient = differences.T @ (share * (wins - chance)) - _RIDGE * beta
        step = np.linalg.solve(_hessian(differences, chance, share), gradient)
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    chance = _logistic(differences @ beta)
    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    scores = differences * (share * (wins - chance))[:, None]
    by_group = np.stack([np.bincount(group_of, weights=column, minlength=count) for column in scores.T], axis=1)
    bread = np.linalg.inv(_hessian(differences, chance, share))
    covariance = bread @ (by_group.T @ by_group) @ bread * count / max(count - 1, 1)
    return BradleyTerryFit(beta, np.sqrt(np.diag(covariance)))


def _logistic(scores: Doubles) -> Doubles:
    chance: Doubles = 1 / (1 + np.exp(-np.clip(scores, -30, 30)))
    return chance


def _hessian(differences: Doubles, chance: Doubles, share: Doubles) -> Doubles:
    weighted = differences * (share * chance * (1 - chance))[:, None]
    hessian: Doubles = weighted.T @ differences + _RIDGE * np.eye(differences.shape[1])
    return hessian
