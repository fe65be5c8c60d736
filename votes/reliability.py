"""Fit how reliable voters are: the model of Dawid and Skene, in which voters share what is common to all.

Each pair has a true outcome. Each voter has a confusion matrix: how often they vote for which outcome, by the true one.
Few people vote often. So a voter's matrix is shrunk towards that of all voters, by SHARED_VOTES votes for each true
outcome. The matrix of all voters and the shares of true outcomes are symmetric in A and B. Otherwise people who always
click one side could pass for those who know the truth. Source: Dawid and Skene, Applied Statistics 28 (1979).
`python -m benchmarks.voters` compares it with other models on held-out votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Ints, Probabilities

SHARED_VOTES: Final = 5.0  # best of 1, 5, 20, 50 on held-out votes of 69 people: benchmarks/voters.py
_LEAST_INFORMATION: Final = 1e-3  # nats
_STEPS: Final = 100
_TOLERANCE: Final = 1e-6  # change of the pairs' probabilities at which the fit ends


@dataclass(frozen=True)
class Reliability:
    """The fitted model of v voters and n pairs."""

    prior: Probabilities  # (k,) of true outcomes
    confusion: Doubles  # (v, true outcome, vote); rows sum to 1
    truth: Probabilities  # (n, k) of each pair's true outcome

    @property
    def weights(self) -> Doubles:
        """What a vote of each voter (v,) is worth: the information about the true outcome that it carries, in nats.

        All voters are worth 1 if the votes tell next to nothing: ratios of noise would be no weights.
        """
        joint = self.prior[:, None] * self.confusion  # (v, true outcome, vote)
        votes = joint.sum(axis=1, keepdims=True)
        information: Doubles = (joint * np.log(self.confusion / votes)).sum(axis=(1, 2))
        return information if information.mean() > _LEAST_INFORMATION else np.ones(len(information))

    def predict(self, pairs: Ints, voters: Ints) -> Probabilities:
        """Return the probabilities (m, k) of the votes of some voters (m,) on some pairs (m,)."""
        predicted: Probabilities = np.einsum("mt,mtv->mv", self.truth[pairs], self.confusion[voters])
        return predicted


def fit_reliability(pairs: Ints, voters: Ints, shares: Doubles, shared_votes: float = SHARED_VOTES) -> Reliability:
    """Fit the model by expectation and maximization to votes: pair (m,), voter (m,) and shares by outcome (m, k).

    `shared_votes` is how many votes the matrix of all voters counts as.
    """
    k = shares.shape[1]
    n, v = int(pairs.max()) + 1, int(voters.max()) + 1
    exchanged = [1, 0, *range(2, k)]
    counts = _sums(pairs, shares, n)
    prior = shares.mean(axis=0)
    prior = (prior + prior[exchanged]) / 2
    truth = (counts + prior) / (counts.sum(axis=1, keepdims=True) + 1)
    for _ in range(_STEPS):
        by_voter = np.stack([_sums(voters, truth[pairs][:, [t]] * shares, v) for t in range(k)], axis=1)
        common = by_voter.sum(axis=0) + 1 / k
        common += common[exchanged][:, exchanged]
        common /= common.sum(axis=1, keepdims=True)
        confusion = by_voter + shared_votes * common
        confusion /= confusion.sum(axis=2, keepdims=True)
        prior = truth.mean(axis=0)
        prior = (prior + prior[exchanged]) / 2
        evidence = np.einsum("mtv,mv->mt", np.log(confusion)[voters], shares)
        scores = np.log(np.maximum(prior, 1e-12)) + _sums(pairs, evidence, n)
        before, truth = truth, np.exp(scores - scores.max(axis=1, keepdims=True))
        truth /= truth.sum(axis=1, keepdims=True)
        if np.abs(truth - before).max() < _TOLERANCE:
            break
    return Reliability(prior, confusion, truth)


def _sums(rows: Ints, values: Doubles, count: int) -> Doubles:
    """Return the sums (count, k) of values (m, k) by their rows (m,)."""
    return np.stack([np.bincount(rows, column, count) for column in values.T], axis=1)
