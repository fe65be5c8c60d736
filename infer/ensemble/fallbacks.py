"""Estimate fallback probabilities for records whose answers are empty or identical.

A model has seen few of these degenerate records, so its predictions for them are arbitrary. A fallback gives all
records of one case the same probabilities, estimated from the training records of that case. Swapping A and B swaps the
fallback's P(A) and P(B): records with an empty A or an empty B are pooled. Where the swap changes nothing, P(A) and
P(B) are equal.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from metrics.intervals import standard_error
from metrics.scores import record_log_loss
from votes.swap import swap_labels, swap_probabilities

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities
    from votes.arrays import Votes

DegenerateCase = Literal["ordinary", "empty_a", "empty_b", "both_empty", "identical"]
DEGENERATE_CASES: Final[tuple[DegenerateCase, ...]] = get_args(
    DegenerateCase
)  # a record's code is the position of its case; 0 is ordinary
EMPTY_A, EMPTY_B, BOTH_EMPTY, IDENTICAL = range(1, 5)
CaseCodes = npt.NDArray[np.int8]

# The weight of the prior in votes. The prior is the blend's mean prediction on the case. With ten votes a true share of
# a third lies within about 0.14 of it. That is one standard deviation of a Dirichlet distribution, sqrt(1/3 * 2/3 /
# 11). Fewer than ten records move it less than halfway.
PRIOR_VOTES: Final = 10.0
# With fewer records the spread of their losses is too uncertain to show whether a fallback helps.
MIN_RECORDS: Final = 5


@dataclass(frozen=True)
class Fallback:
    """The estimate for one case, and whether its records get these probabilities instead of the blend's."""

    case: DegenerateCase
    records: int  # training records of this case alone
    vote_shares: tuple[float, ...]
    prior: tuple[float, ...]
    probabilities: tuple[float, ...]
    applied: bool
    reason: str


def degenerate_case(response_a: str, response_b: str) -> int:
    """Return the code of a record from its answers' texts, stripped of white space at both ends."""
    if not response_a or not response_b:
        return BOTH_EMPTY if response_a == response_b else EMPTY_A if not response_a else EMPTY_B
    return IDENTICAL if response_a == response_b else 0


def fit_fallbacks(predictions: Probabilities, votes: Votes, cases: CaseCodes) -> list[Fallback]:
    """Return a fallback for each case, from the blend's predictions (n, k) that did not see their votes.

    A fallback is applied if it lowers the loss of its records by more than one standard error. For this test, the
    fallback of a record is estimated without the records of its fold. Otherwise the simpler blend stands.
    """
    fallbacks = []
    for codes in ((EMPTY_A, EMPTY_B), (BOTH_EMPTY,), (IDENTICAL,)):
        members = np.isin(cases, codes)
        turned = cases[members] == EMPTY_B
        of_case = votes.take(members)
        labels = np.where(turned, swap_labels(of_case.labels), of_case.labels).astype(np.int8)
        of_case = dataclasses.replace(of_case, labels=labels)
        raw = np.where(turned[:, None], swap_probabilities(predictions[members]), predictions[members])
        symmetric = codes[0] != EMPTY_A
        overall = _symmetrized(votes.mean(predictions))
        estimate = _estimate(raw, of_case, symmetric, overall)
        applied, reason = _decide(raw, of_case, symmetric, overall)
        for code in codes:
            shares, prior, probabilities = (
                tuple((swap_probabilities(values[None])[0] if code == EMPTY_B else values).tolist())
                for values in estimate
            )
            records = len(votes.take(cases == code).first)
            fallbacks.append(Fallback(DEGENERATE_CASES[code], records, shares, prior, probabilities, applied, reason))
    return fallbacks


def _estimate(
    predictions: Probabilities, votes: Votes, symmetric: bool, overall: Doubles
) -> tuple[Doubles, Doubles, Doubles]:
    """Return vote shares, prior and shrunken probabilities, each (k,).

    The prior is the mean of the predictions. Without predictions it is `overall`, the mean over all records.
    """
    prior = votes.mean(predictions) if len(votes) else overall
    counts = np.bincount(votes.labels, votes.weights, votes.classes).astype(np.float64)
    if symmetric:
        prior, counts = _symmetrized(prior), _symmetrized(counts)
    total = float(votes.weights.sum())
    return counts / max(total, 1), prior, (PRIOR_VOTES * prior + counts) / (PRIOR_VOTES + total)


def _symmetrized(values: Doubles) -> Doubles:
    """Return values (k,) with the mean of A and B in place of both."""
    symmetrized: Doubles = (values + swap_probabilities(values[None])[0]) / 2
    return symmetrized


def _decide(predictions: Probabilities, votes: Votes, symmetric: bool, overall: Doubles) -> tuple[bool, str]:
    """Return whether a fallback helps, and the reason."""
    count = len(votes.first)
    if count == 0:
        return False, "no training record has this case"
    if count < MIN_RECORDS:
        kind = "" if symmetric else " with an empty A or B"
        return False, f"only {count} in training{kind}; at least {MIN_RECORDS} are needed to show that it helps"
    held_out_estimates = np.empty_like(predictions)
    for fold in np.unique(votes.folds):
        held_out = votes.folds == fold
        _, _, probabilities = _estimate(predictions[~held_out], votes.take(~held_out), symmetric, overall)
        held_out_estimates[held_out] = probabilities
    gains = record_log_loss(predictions, votes.labels) - record_log_loss(held_out_estimates, votes.labels)
    gain, error = float(votes.mean(gains)), standard_error(gains, votes.groups, votes.weights)
    applied = gain > error
    verdict = "it helps" if applied else "no clear gain"
    return applied, f"{verdict}: gain {gain:+.4f} nats on {count} records, standard error {error:.4f}"
