"""Compare judges with one more person, on records of several voters, by slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from metrics.agreement import label_agreement
from metrics.intervals import standard_error
from metrics.voters import SharedVotes
from report.sections.judges.raters import MIN_RATED
from report.slices import slices_of_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Mask
    from report.context import ReportContext
    from report.sections.judges.raters import Rater

ALL: Final = ("all records", "all")


def stand_in(raters: Sequence[Rater], context: ReportContext) -> list[dict[str, Any]]:
    """Return by slice how much more judges agree with a vote than one other person does; empty without such votes."""
    shared = _shared_votes(context)
    if shared is None:
        return []
    votes, first = context.votes, context.votes.first
    slices = slices_of_records(context.train_columns, context.rows, votes)
    masks = {ALL: np.ones(len(votes), bool), **{name: mask for name, mask in slices.items() if not mask.all()}}
    parts = {name: mask[first][shared.records] for name, mask in masks.items()}
    return [row for rater in raters for row in compare_with_people(rater, shared, parts)]


def _shared_votes(context: ReportContext) -> SharedVotes | None:
    """Return the votes of known or unknown voters on records of at least two; None if such records are few."""
    ballots = context.records.ballots()
    if ballots is None:
        return None
    shares = np.stack(ballots["votes"].to_pylist())
    ballots = ballots.filter(pa.array((shares > shares.max(axis=1, keepdims=True) - 1e-9).sum(axis=1) == 1))
    record = ballots["record"].to_numpy()
    labels = np.stack(ballots["votes"].to_pylist()).argmax(axis=1).astype(np.int8)
    voters = ballots["voter"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    votes, first = context.votes, context.votes.first
    folds, groups = votes.folds[first][record], votes.groups[first][record]
    shared, _ = SharedVotes.of(record, labels, folds, groups, voters, votes.classes)
    return shared if len(np.unique(shared.records)) >= MIN_RATED else None


def compare_with_people(
    rater: Rater, shared: SharedVotes, parts: Mapping[tuple[str, str], Mask]
) -> list[dict[str, Any]]:
    """Return a row for each part (m,) of the votes on which the rater can be compared.

    The intervals hold for all parts together (Bonferroni), by cluster-robust errors and Student's t: percentiles of the
    bootstrap were too narrow at such levels. A part needs MIN_RATED prompts, except for all records.
    """
    from scipy.stats import t as student_t

    verdicts = rater.verdicts[shared.records]
    rated = ~np.isnan(verdicts[:, 0])
    if not rated.any():
        return []
    more = label_agreement(verdicts[rated], shared.labels[rated]) - shared.agreement[rated]
    groups, inside = shared.groups[rated], np.stack([part[rated] for part in parts.values()], axis=1)
    rows = []
    for n, (by, name) in enumerate(parts):
        own = inside[:, n]
        prompts = len(np.unique(groups[own]))
        if prompts < 2 or (prompts < MIN_RATED and (by, name) != ALL):
            continue
        mean = float(more[own].mean())
        width = student_t.ppf(1 - 0.025 / len(parts), prompts - 1) * standard_error(more[own], groups[own])
        low, high = mean - float(width), mean + float(width)
        verdict = "at least as good" if low >= 0 else "worse" if high < 0 else "undecided"
        rows.append(
            {
                "judge": rater.name,
                "by": by,
                "slice": name,
                "votes": int(own.sum()),
                "difference": mean,
                "difference_ci95": [low, high],
                "verdict": verdict,
            }
        )
    return rows
