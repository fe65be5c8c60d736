"""The votes of training records as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Folds, Groups, Labels, Mask, Rows


@dataclass(frozen=True)
class Votes:
    """One vote per record, in the order of the records."""

    labels: Labels  # (n,) indexes into votes.schema.LABELS
    folds: Folds  # (n,) records of one fold are held out together
    groups: Groups  # (n,) records of one group share a prompt, so they are not independent

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Mask | Rows) -> Votes:
        """Return the votes of some records."""
        return Votes(self.labels[rows], self.folds[rows], self.groups[rows])


def votes_from_table(records: pa.Table) -> Votes:
    """Return the votes of a table with the columns label, fold and group."""
    return Votes(*(records[name].to_numpy() for name in ("label", "fold", "group")))
