"""Join the votes on one pair, and weigh them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from votes.comparison import OUTCOMES
from votes.reliability import fit_reliability
from votes.schema import BALLOTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Doubles, Ints, Mask
    from core.storage import Folder

_LEAST_WEIGHT: Final = 1e-6  # a record without weight could not be trained on at all
_A, _B, _TIE, _BOTH_BAD = range(len(OUTCOMES))


@dataclass(frozen=True)
class StagedRows:
    """The rows of a split's staged shards, without texts and ids."""

    staged: Folder
    table: pa.Table
    sizes: Sequence[int]  # rows of each shard
    names: Sequence[str]

    @classmethod
    def read(cls, staged: Folder, names: Sequence[str], columns: list[str]) -> StagedRows:
        """Read columns of some shards."""
        tables = [staged.read_table(name, columns) for name in names]
        return cls(staged, pa.concat_tables(tables), [len(table) for table in tables], names)

    def values(self, name: str) -> npt.NDArray[Any]:
        """Return a column (n,)."""
        values: npt.NDArray[Any] = self.table[name].to_numpy()
        return values

    def id(self, row: int) -> str:
        """Return the id of a row, from its shard."""
        ends = np.cumsum([0, *self.sizes])
        shard = int(np.searchsorted(ends, row, side="right")) - 1
        return str(self.staged.read_table(self.names[shard], ["id"])["id"][row - int(ends[shard])].as_py())

    def where(self, row: int) -> str:
        """Return a row's number in its file, with the file's number if there are several."""
        files = [name.rpartition("/file-")[2][:5] for name in self.names]
        number = self.table["row"][row].as_py()
        if len(set(files)) == 1:
            return str(number)
        shard = int(np.searchsorted(np.cumsum(self.sizes), row, side="right"))
        return f"{number} of file {int(files[shard]) + 1}"


@dataclass(frozen=True)
class Ballots:
    """The votes of all rows, joined by pair."""

    first: Ints  # (n,) first row of each record
    record: Ints  # (m,) record of each vote
    shares: Doubles  # (m, 4) of each vote by OUTCOMES, as the record's first row has the sides
    exchanged: Mask  # (m,) whether the vote's own A is the record's B
    voters: pa.Array  # (m,)
    times: pa.Array  # (m,)

    @classmethod
    def read(cls, rows: StagedRows, location: str) -> Ballots:
        """Join the votes. Raises InputError if rows of one id have different texts."""
        table, digests = rows.table, rows.values("digest")
        _, first_of_key, record_of_row = np.unique(rows.values("key"), return_index=True, return_inverse=True)
        order = np.argsort(first_of_key)  # records in the order of their first rows
        record_of_row = np.argsort(order)[record_of_row]
        first = first_of_key[order]
        differing = np.flatnonzero(digests != digests[first][record_of_row])
        if len(differing):
            row = int(differing[0])
            raise InputError(
                f"the id {rows.id(row)!r} is used in rows {rows.where(int(first[record_of_row[row]]))} and "
                f"{rows.where(row)} for different texts",
                where=location,
                fix="give every pair of answers its own id.",
            )
        lists = table["shares"].combine_chunks()
        row_of_vote = np.repeat(np.arange(len(table)), pc.list_value_length(lists).to_numpy())
        shares = lists.flatten().flatten().to_numpy().reshape(-1, len(OUTCOMES)).copy()
        exchanged = rows.values("exchanged")
        other_way = (exchanged != exchanged[first][record_of_row])[row_of_vote]
        shares[other_way] = shares[other_way][:, [_B, _A, _TIE, _BOTH_BAD]]
        flat = [table[name].combine_chunks().flatten() for name in ("voters", "times")]
        return cls(first, record_of_row[row_of_vote], shares, other_way, *flat)

    def with_mean_weight_1(self) -> Ballots:
        """Return the votes with their weights divided by the mean: what is tuned to counts of votes still fits."""
        return dataclasses.replace(self, shares=self.shares * (len(self.shares) / self.shares.sum()))

    @property
    def per_record(self) -> Ints:
        """Number of votes (n,) of each record."""
        return np.bincount(self.record, minlength=len(self.first))

    def by_outcome(self, outcomes: Sequence[str]) -> Doubles:
        """Return the shares (m, k) of the votes by outcomes. What they lack counts as a tie, or half for each side."""
        shares = self.shares.copy()
        if "both_bad" not in outcomes:
            shares[:, _TIE] += shares[:, _BOTH_BAD]
        if "tie" not in outcomes:
            shares[:, :_TIE] += shares[:, [_TIE]] / 2
        return shares[:, [OUTCOMES.index(outcome) for outcome in outcomes]]

    def counts(self, outcomes: Sequence[str], weights: Doubles | None = None) -> Doubles:
        """Return the vote counts (n, k) of the records, with weights (m,) of the votes."""
        shares = self.by_outcome(outcomes) if weights is None else self.by_outcome(outcomes) * weights[:, None]
        n = len(self.first)
        return np.stack([np.bincount(self.record, column, minlength=n) for column in shares.T], axis=1)

    def reliability(self, outcomes: Sequence[str]) -> Doubles:
        """Return the weights (m,) of the votes by their voters' reliability; their mean is 1.

        A vote of an unknown voter has the mean weight.
        """
        known = np.flatnonzero(self.voters.is_valid().to_numpy(zero_copy_only=False))
        voters = self.voters.take(pa.array(known)).dictionary_encode().indices.to_numpy()
        _, pairs = np.unique(self.record[known], return_inverse=True)
        shares = self.by_outcome(outcomes)[known]
        of_voters = fit_reliability(pairs, voters, shares / shares.sum(axis=1, keepdims=True)).weights
        weights = np.ones(len(self.record))
        weights[known] = of_voters[voters] / max(of_voters[voters].mean(), np.finfo(np.float64).tiny)
        return np.maximum(weights, _LEAST_WEIGHT)

    def totals(self, outcomes: Sequence[str]) -> list[float]:
        """Return the number of votes for each outcome."""
        return [round(float(total), 6) for total in self.by_outcome(outcomes).sum(axis=0)]

    def both_bad_as_tie(self, outcomes: Sequence[str]) -> float:
        """Return how many votes for both_bad count as ties."""
        return 0.0 if "both_bad" in outcomes else round(float(self.shares[:, _BOTH_BAD].sum()), 6)

    def ties_as_halves(self, outcomes: Sequence[str]) -> float:
        """Return how many ties, with both_bad among them, count half for each side."""
        return 0.0 if "tie" in outcomes else round(float(self.shares[:, _TIE:].sum()), 6)

    @property
    def repeated(self) -> int:
        """Number of votes by which voters repeat or change their own vote on a pair."""
        known = self.voters.is_valid().to_numpy(zero_copy_only=False)
        numbers = self.voters.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
        pairs = np.stack([self.record[known], numbers[known]])
        return int(known.sum() - np.unique(pairs, axis=1).shape[1])

    def table(self, outcomes: Sequence[str], weights: Doubles) -> pa.Table:
        """Return one row for each vote: BALLOTS, with the number of its record in place of the id."""
        shares, record = as_lists(self.by_outcome(outcomes)), pa.array(self.record)
        columns = [record, self.voters, self.times, shares, pa.array(weights), pa.array(self.exchanged)]
        return pa.table(columns, names=["record", *BALLOTS.names[1:]])


def written_count(count: float) -> str:
    """Return a count of votes as a reader expects it: 1,234,567 or 0.333333."""
    return f"{round(count, 6):,.10g}"


def as_lists(values: Doubles) -> pa.Array:
    """Return the rows of values (n, k) as lists. Through Python's lists a row would take 200 bytes for a moment."""
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).ravel()))
