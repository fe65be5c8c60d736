"""Records whose answers leave nothing to compare: empty ones and identical ones.

A model that has seen few of them may say anything, and their votes have little to do with the texts. A guard gives all
records of one case the same probabilities, estimated from the training records of that case. A with B exchanged: an
empty A and an empty B share their records, each seen from its own side, and cases that exchange leaves as they are
have as much P(A) as P(B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from metrics.intervals import standard_error
from metrics.scores import record_log_loss
from votes.swap import swap_labels, swap_probabilities

if TYPE_CHECKING:
    from infer.ensemble.pools import Floats, Labels

Case = Literal["ordinary", "empty_a", "empty_b", "both_empty", "identical"]
CASES: Final[tuple[Case, ...]] = get_args(Case)  # a record's code is the position of its case; 0 is ordinary
EMPTY_A, EMPTY_B, BOTH_EMPTY, IDENTICAL = range(1, 5)
Codes = npt.NDArray[np.int8]

# Votes that the prior is worth. The prior is the blend's own mean prediction on the case, which is known to be good
# elsewhere: ten votes let the true share of a class of a third lie within about 0.14 of it (one standard deviation of
# a Dirichlet distribution, sqrt(1/3 * 2/3 / 11)), and fewer than ten records move it less than half of the way.
STRENGTH: Final = 10.0
# Fewer records say nothing reliable about whether a guard helps: their losses' own spread is too uncertain.
LEAST_RECORDS: Final = 5


@dataclass(frozen=True)
class Guard:
    """What is known of one case, and whether its records get these probabilities in place of the blend's."""

    case: Case
    records: int  # training records of this very case
    vote_shares: tuple[float, ...]
    prior: tuple[float, ...]
    probabilities: tuple[float, ...]
    applied: bool
    reason: str


def case_of(response_a: str, response_b: str) -> int:
    """The code of a record by its answers' texts, white space at their ends stripped."""
    if not response_a or not response_b:
        return BOTH_EMPTY if response_a == response_b else EMPTY_A if not response_a else EMPTY_B
    return IDENTICAL if response_a == response_b else 0


def fit_guards(
    predictions: Floats, labels: Labels, cases: Codes, parts: npt.NDArray[np.int16], groups: npt.NDArray[np.int64]
) -> list[Guard]:
    """A guard for each case, from the blend's predictions (n, 3) that did not see their labels.

    A guard is applied if it lowers the loss of its records by more than one standard error, each record's guard made
    without the records of its part; else the simpler thing, no guard, stands. Only records of different `groups`,
    prompts, are independent.
    """
    guards = []
    for codes in ((EMPTY_A, EMPTY_B), (BOTH_EMPTY,), (IDENTICAL,)):
        chosen = np.isin(cases, codes)
        turned = cases[chosen] == EMPTY_B
        raw = np.where(turned[:, None], swap_probabilities(predictions[chosen]), predictions[chosen])
        votes = np.where(turned, swap_labels(labels[chosen]), labels[chosen]).astype(np.int8)
        symmetric = codes[0] != EMPTY_A
        elsewhere = _evened(predictions.mean(axis=0))
        shares, prior, probabilities = _estimate(raw, votes, symmetric, elsewhere)
        applied, reason = _decide(raw, votes, symmetric, elsewhere, parts[chosen], groups[chosen])
        for code in codes:
            seen = [shares, prior, probabilities]
            if code == EMPTY_B:
                seen = [swap_probabilities(values[None])[0] for values in seen]
            shares_seen, prior_seen, probabilities_seen = (tuple(values.tolist()) for values in seen)
            records = int((cases == code).sum())
            guards.append(Guard(CASES[code], records, shares_seen, prior_seen, probabilities_seen, applied, reason))
    return guards


def _estimate(predictions: Floats, votes: Labels, symmetric: bool, elsewhere: Floats) -> tuple[Floats, Floats, Floats]:
    """Vote shares, prior and shrunken probabilities, each (3,).

    The prior is the mean of the predictions, or without any that of all records, `elsewhere`.
    """
    prior = predictions.mean(axis=0) if len(votes) else elsewhere
    counts = np.bincount(votes, minlength=3).astype(np.float64)
    if symmetric:
        prior, counts = _evened(prior), _evened(counts)
    return counts / max(len(votes), 1), prior, (STRENGTH * prior + counts) / (STRENGTH + len(votes))


def _evened(values: Floats) -> Floats:
    """Values (3,) with those of A and B replaced by their mean."""
    evened: Floats = (values + swap_probabilities(values[None])[0]) / 2
    return evened


def _decide(
    predictions: Floats,
    votes: Labels,
    symmetric: bool,
    elsewhere: Floats,
    parts: npt.NDArray[np.int16],
    groups: npt.NDArray[np.int64],
) -> tuple[bool, str]:
    """Whether a guard helps, and why."""
    count = len(votes)
    if count == 0:
        return False, "no training record is like this"
    if count < LEAST_RECORDS:
        also = "" if symmetric else " with an empty A or B"
        return False, f"{count} in training{also}; fewer than {LEAST_RECORDS} cannot show that it helps"
    guarded = np.empty_like(predictions)
    for part in np.unique(parts):
        held_out = parts == part
        _, _, probabilities = _estimate(predictions[~held_out], votes[~held_out], symmetric, elsewhere)
        guarded[held_out] = probabilities
    gains = record_log_loss(predictions, votes) - record_log_loss(guarded, votes)
    gain, error = float(gains.mean()), standard_error(gains, groups)
    applied = gain > error
    verdict = "it helps" if applied else "no clear gain"
    return applied, f"{verdict}: it takes {gain:+.4f} off the log loss of {count} records, standard error {error:.4f}"
