"""Bradley-Terry models of pairwise votes on what the answers look like.

The model (Bradley and Terry 1952) says P(A wins) = 1 / (1 + exp(-(x_a - x_b) · beta)) when each answer's strength is a
linear function of its features x. The arena's style control (Li, Angelopoulos and Chiang 2024, "Does style matter?
Disentangling style and substance in Chatbot Arena") fits it to four features of style: length in tokens, headers, list
items and bold spans, each as the normalised difference (a - b) / (a + b), divided by its standard deviation. Theirs
has a strength for each model as well; ours has none, because a prediction never knows the models' names.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile
_RIDGE = 1e-2  # on half the squared length of beta: nothing beside the votes, but bounds it where they are separable
_STEPS = 50


@dataclass(frozen=True)
class Fit:
    """Coefficients (d,) in log-odds of a win of A for each unit of the features, and their standard errors (d,)."""

    coefficients: Floats
    standard_errors: Floats

    def interval(self, n: int) -> tuple[float, float]:
        """95% interval of the n-th coefficient, by its normal approximation."""
        half = _NORMAL_95 * self.standard_errors[n]
        return float(self.coefficients[n] - half), float(self.coefficients[n] + half)


def normalised_difference(a: Floats, b: Floats) -> Floats:
    """(a - b) / (a + b) of counts (n,) from 0 up, as in the arena's style control; 0 where neither has any."""
    total = a + b
    difference: Floats = np.where(total > 0, a - b, 0.0) / np.maximum(total, 1.0)
    return difference


def fit(differences: Floats, wins: Floats, groups: npt.NDArray[np.int64]) -> Fit:
    """Fit by maximum likelihood: `differences` (n, d) of the features, `wins` (n,) of A from 0 to 1.

    Newton's method on the logistic log-likelihood, in which half a win is half a record of either outcome (fractional
    logit: Papke and Wooldridge 1996). The standard errors are the cluster-robust ones over `groups` (n,), the records
    of one prompt (Liang and Zeger 1986): those of the Hessian alone would take half a win for as noisy as a whole one.
    """
    size = differences.shape[1]
    beta = np.zeros(size)
    for _ in range(_STEPS):
        chance = _logistic(differences @ beta)
        gradient = differences.T @ (wins - chance) - _RIDGE * beta
        step = np.linalg.solve(_hessian(differences, chance), gradient)
        beta += step
        if np.abs(step).max() < 1e-10:
            break
    chance = _logistic(differences @ beta)
    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    scores = differences * (wins - chance)[:, None]
    by_group = np.stack([np.bincount(group_of, weights=column, minlength=count) for column in scores.T], axis=1)
    bread = np.linalg.inv(_hessian(differences, chance))
    covariance = bread @ (by_group.T @ by_group) @ bread * count / max(count - 1, 1)
    return Fit(beta, np.sqrt(np.diag(covariance)))


def _logistic(scores: Floats) -> Floats:
    chance: Floats = 1 / (1 + np.exp(-np.clip(scores, -30, 30)))
    return chance


def _hessian(differences: Floats, chance: Floats) -> Floats:
    weighted = differences * (chance * (1 - chance))[:, None]
    hessian: Floats = weighted.T @ differences + _RIDGE * np.eye(differences.shape[1])
    return hessian
