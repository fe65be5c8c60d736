"""Fit the outcomes of votes to judges' evidence: a small logistic model that is exact under exchange of A and B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities
    from votes.arrays import Votes
    from votes.verdicts.evidence import Evidence

# Chosen over several divisions into folds by `python -m benchmarks.judges`: from 1 to 10 the loss hardly changes.
PENALTY: Final = 3.0


@dataclass(frozen=True)
class JudgeCalibration:
    """Probabilities of the outcomes from evidence.

    With the antisymmetric evidence x and the symmetric z, the scores of A and B are a x and -a x, and the score of each
    other outcome is c + b z. So the evidence with A and B exchanged gives the exchanged probabilities, to the last bit.
    """

    sides: Doubles  # (p,) a
    levels: Doubles  # (k - 2,) c
    others: Doubles  # (k - 2, q) b

    def predict(self, evidence: Evidence) -> Probabilities:
        """Return the probabilities (n, k); nan where there is no verdict."""
        probabilities = _softmax(_scores(self.sides, self.levels, self.others, evidence))
        probabilities[~evidence.present] = np.nan
        return probabilities

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, as JSON holds them."""
        return {
            "sides": self.sides.tolist(),
            "levels": self.levels.tolist(),
            "others": self.others.tolist(),
            "symmetric": self.others.shape[1],  # with two outcomes, `others` has no row
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JudgeCalibration:
        """Return the calibration that `to_json` described, to the last bit."""
        levels = np.array(values["levels"], np.float64)
        others = np.array(values["others"], np.float64).reshape(len(levels), values["symmetric"])
        return cls(np.array(values["sides"]), levels, others)


def fit_calibration_of_judge(evidence: Evidence, votes: Votes, penalty: float = PENALTY) -> JudgeCalibration:
    """Return the calibration with the least penalized log loss; `evidence` has a row for each row of the votes.

    The loss grows by `penalty` / 2 times the sum of squared weights. The level of
    each outcome is free. Rows without a verdict do not count. Without any, the levels alone are fitted, to all rows.
    """
    from scipy.optimize import minimize

    rows = evidence.present if evidence.present.any() else np.ones(len(votes), bool)
    seen, votes = evidence.take(rows), votes.take(rows)
    k, p, q = votes.classes, seen.antisymmetric.shape[1], seen.symmetric.shape[1]
    labels, weights, one_hot = votes.labels, votes.weights, votes.shares
    lines = np.arange(len(labels))

    def unpack(values: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        return values[:p], values[p : p + k - 2], values[p + k - 2 :].reshape(k - 2, q)

    def loss(values: Doubles) -> tuple[float, Doubles]:
        sides, levels, others = unpack(values)
        predicted = _softmax(_scores(sides, levels, others, seen))
        total = -(weights * np.log(np.maximum(predicted[lines, labels], 1e-300))).sum()
        errors = (predicted - one_hot) * weights[:, None]
        gradient = np.concatenate(
            [
                seen.antisymmetric.T @ (errors[:, 0] - errors[:, 1]) + penalty * sides,
                errors[:, 2:].sum(axis=0),
                (errors[:, 2:].T @ seen.symmetric + penalty * others).ravel(),
            ]
        )
        return float(total + penalty / 2 * ((sides**2).sum() + (others**2).sum())), gradient

    start = np.zeros(p + k - 2 + (k - 2) * q)
    return JudgeCalibration(*unpack(minimize(loss, start, jac=True, method="L-BFGS-B").x))


def _scores(sides: Doubles, levels: Doubles, others: Doubles, evidence: Evidence) -> Doubles:
    """Return the scores (n, k) of the outcomes."""
    of_a = (evidence.antisymmetric * sides).sum(axis=1)
    of_others = levels + evidence.symmetric @ others.T
    return np.concatenate([of_a[:, None], -of_a[:, None], of_others], axis=1)


def _softmax(scores: Doubles) -> Probabilities:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    total = powers[:, 0] + powers[:, 1]  # in this order, so that the sum is the same with A and B exchanged
    for column in powers.T[2:]:
        total = total + column
    probabilities: Probabilities = powers / total[:, None]
    return probabilities
