"""The votes of training records as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Doubles, Folds, Groups, Labels, Mask, Rows


@dataclass(frozen=True)
class Votes:
    """The votes of records, one row for each outcome that a record has votes for.

    A record with one vote has one row, so rows and records are the same where nobody voted twice. A record with two
    votes for A and one for a tie has two rows, of weights 2 and 1. A weighted mean of losses over the rows is the mean
    loss over votes.
    """

    labels: Labels  # (m,) indexes into votes.schema.LABELS
    folds: Folds  # (m,) records of one fold are held out together
    groups: Groups  # (m,) records of one group share a prompt, so they are not independent
    weights: Doubles  # (m,) votes of each row
    records: Rows  # (m,) record of each row, ascending
    classes: int = 3  # number of outcomes

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def first(self) -> Rows:
        """Rows (n,) with the first of each record's rows: for values that a record's rows share."""
        return np.flatnonzero(np.diff(self.records, prepend=-1) > 0)

    @property
    def shares(self) -> Doubles:
        """One-hot outcomes (m, k) of the rows."""
        return np.eye(self.classes)[self.labels]

    def take(self, rows: Mask | Rows) -> Votes:
        """Return some rows; they must keep their order."""
        names = ("labels", "folds", "groups", "weights", "records")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def spread(self, values: Any) -> Any:  # noqa: ANN401 - an array or a table of Arrow
        """Return values (n, ...) of records for the rows (m, ...)."""
        return values.take(self.records) if hasattr(values, "column_names") else values[self.records]

    def mean(self, values: Doubles) -> Any:  # noqa: ANN401 - a number, or an array without the first axis
        """Return the mean of values (m, ...) over the votes."""
        return np.average(values, axis=0, weights=self.weights)


def votes_from_table(records: pa.Table, classes: int = 3) -> Votes:
    """Return the votes of a table with the columns votes, fold and group."""
    counts = counts_from_table(records, classes)
    rows, labels = np.nonzero(counts > 0)
    folds, groups = (records[name].to_numpy()[rows] for name in ("fold", "group"))
    return Votes(labels.astype(np.int8), folds, groups, counts[rows, labels], rows, classes)


def counts_from_table(records: pa.Table, classes: int) -> Doubles:
    """Return the vote counts (n, k) in the column votes of a table."""
    chunks = [chunk.flatten() for chunk in records["votes"].chunks]
    flat = np.concatenate([chunk.to_numpy() for chunk in chunks]) if chunks else np.empty(0)
    counts: Doubles = flat.reshape(len(records), classes)
    return counts
