"""Plan the records between the two passes of ingest: join the votes on one pair, choose outcomes, compute folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from votes.comparison import OUTCOMES
from votes.folds import assign_folds
from votes.reliability import fit_reliability
from votes.schema import BALLOTS, LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Doubles, Folds, Groups, Ints
    from core.shards import Item
    from core.storage import Folder

_LEAST_WEIGHT: Final = 1e-6  # a record without weight could not be trained on at all
_A, _B, _TIE, _BOTH_BAD = range(len(OUTCOMES))


@dataclass(frozen=True)
class PlanRequest:
    """What to plan: the split, the staged shards of all splits, and the settings."""

    split: str
    names: Mapping[str, Sequence[str]]
    folds: int
    seed: int
    location: str
    outcomes: Sequence[str] | None
    per_pair: bool = False  # whether the votes of each pair are scaled to a sum of 1
    reliability: bool = False  # whether votes are weighed in training by their voters' reliability


@dataclass(frozen=True)
class _Rows:
    """The rows of a split's staged shards, without texts."""

    table: pa.Table
    sizes: Sequence[int]  # rows of each shard
    names: Sequence[str]

    @classmethod
    def read(cls, staged: Folder, names: Sequence[str], columns: list[str]) -> _Rows:
        tables = [staged.read_table(name, columns) for name in names]
        return cls(pa.concat_tables(tables), [len(table) for table in tables], names)

    def where(self, row: int) -> str:
        """Return a row's number in its file, with the file's number if there are several."""
        files = [name.rpartition("/file-")[2][:5] for name in self.names]
        number = self.table["row"][row].as_py()
        if len(set(files)) == 1:
            return str(number)
        shard = int(np.searchsorted(np.cumsum(self.sizes), row, side="right"))
        return f"{number} of file {int(files[shard]) + 1}"


def plan_records(staged: Folder, request: PlanRequest) -> dict[str, Any]:
    """Stage what the second pass adds to each shard; return the final shards, and metrics for the manifest.

    Raises InputError for an id that two different records have, and for votes that cannot fill the folds.
    """
    labeled = request.split != "test"
    votes = ["key", "digest", "exchanged", "shares", "voters", "times"] if labeled else []
    rows = _Rows.read(staged, request.names[request.split], ["id", "group", "row", "attachments", *votes])
    first = np.arange(len(rows.table))
    metrics: dict[str, Any] = {}
    added: dict[str, Any] = {}
    table: pa.Table | None = None
    if labeled:
        ballots = _Ballots.read(rows, request.location)
        first = ballots.first
        outcomes = _outcomes(ballots.shares, request)
        counts = _scaled(ballots.counts(outcomes), request)
        labels = counts.argmax(axis=1).astype(np.int8)
        groups = rows.table["group"].to_numpy()[first]
        folds, of_split = _folds(staged, request, labels, groups)
        metrics |= of_split if request.split == "train" else {request.split: of_split}
        if request.split == "train":
            metrics |= {"outcomes": outcomes, "votes": dict(zip(outcomes, ballots.totals(outcomes), strict=True))}
            if ballots.both_bad_as_tie(outcomes):
                metrics["both_bad_as_tie"] = ballots.both_bad_as_tie(outcomes)
        added = {
            "fold": pa.array(folds),
            "votes": pa.array(list(counts)),
            "training_votes": pa.nulls(len(counts), pa.list_(pa.float64())),
            "voters": pa.array(ballots.per_record),
            "label": pa.array(labels),
        }
        has_voters = ballots.voters.null_count < len(ballots.voters)
        weights = np.ones(len(ballots.record))
        if request.reliability:
            if not has_voters and request.split == "train":
                raise InputError(
                    "the votes name no voters, so their reliability cannot be fitted",
                    "data.voters.model",
                    "set it to none, or name the column of the voters with data.columns.voter.",
                )
            weights = ballots.reliability(outcomes) if has_voters else weights
            added["training_votes"] = pa.array(list(_scaled(ballots.counts(outcomes, weights), request)))
        if has_voters or len(ballots.record) > len(first):
            ids = rows.table["id"].combine_chunks().take(pa.array(first))
            table = ballots.table(ids, outcomes, weights)
    _refuse_duplicates(rows, first, request.location)
    attachments = pc.sum(rows.table["attachments"]).as_py()
    if attachments:
        metrics["attachments"] = metrics.get("attachments", 0) + attachments
    return {"shards": _stage_shards(staged, request.split, rows, first, added, table), "metrics": metrics}


@dataclass(frozen=True)
class _Ballots:
    """The votes of all rows, joined by pair."""

    first: Ints  # (n,) first row of each record
    record: Ints  # (m,) record of each vote
    shares: Doubles  # (m, 4) of each vote by OUTCOMES, as the record's first row has the sides
    voters: pa.Array  # (m,)
    times: pa.Array  # (m,)

    @classmethod
    def read(cls, rows: _Rows, location: str) -> _Ballots:
        """Join the votes. Raises InputError if rows of one id have different texts."""
        table = rows.table.combine_chunks()
        keys, digests = table["key"].to_numpy(), table["digest"].to_numpy()
        _, first_of_key, record_of_row = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first_of_key)  # records in the order of their first rows
        record_of_row = np.argsort(order)[record_of_row]
        first = first_of_key[order]
        differing = np.flatnonzero(digests != digests[first][record_of_row])
        if len(differing):
            row = int(differing[0])
            raise InputError(
                f"the id {table['id'][row].as_py()!r} is used in rows {rows.where(int(first[record_of_row[row]]))} and "
                f"{rows.where(row)} for different texts",
                where=location,
                fix="give every pair of answers its own id.",
            )
        lists = table["shares"].combine_chunks()
        row_of_vote = np.repeat(np.arange(len(table)), pc.list_value_length(lists).to_numpy())
        shares = lists.flatten().flatten().to_numpy().reshape(-1, len(OUTCOMES)).copy()
        exchanged = table["exchanged"].to_numpy(zero_copy_only=False)
        other_way = (exchanged != exchanged[first][record_of_row])[row_of_vote]
        shares[other_way] = shares[other_way][:, [_B, _A, _TIE, _BOTH_BAD]]
        flat = [table[name].combine_chunks().flatten() for name in ("voters", "times")]
        return cls(first, record_of_row[row_of_vote], shares, *flat)

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

    def table(self, ids: pa.Array, outcomes: Sequence[str], weights: Doubles) -> pa.Table:
        """Return one row for each vote, with the number of its record in a last column."""
        shares, record = pa.array(list(self.by_outcome(outcomes))), pa.array(self.record)
        columns = [ids.take(record), self.voters, self.times, shares, pa.array(weights), record]
        return pa.table(columns, names=[*BALLOTS.names, "record"])


def planned_name(shard: str) -> str:
    """Return the name of the staged table of what is added to a shard."""
    return f"planned/{shard}"


def ballots_name(shard: str) -> str:
    """Return the name of the staged table of a shard's votes with voters."""
    return f"ballots/{shard}"


def _scaled(counts: Doubles, request: PlanRequest) -> Doubles:
    return counts / counts.sum(axis=1, keepdims=True) if request.per_pair else counts


def _outcomes(shares: Doubles, request: PlanRequest) -> list[str]:
    """Return the outcomes to predict: those of the settings, else A, B, and tie if anybody voted tie or both bad."""
    if request.outcomes is not None:
        return list(request.outcomes)
    return list(OUTCOMES[: 3 if shares[:, _TIE:].any() else 2])


def _folds(
    staged: Folder, request: PlanRequest, labels: npt.NDArray[np.int8], groups: Groups
) -> tuple[Folds, dict[str, Any]]:
    """Return the folds (n,), and what the manifest says of them."""
    counted = dict(zip((*LABELS, "both_bad"), np.bincount(labels, minlength=3).tolist(), strict=False))
    if request.split != "train":
        folds = _folds_of_other_source(staged, request.names["train"], groups)
        return folds, {"labels": counted, "with_a_prompt_of_train": int((folds >= 0).sum())}
    try:
        folds = assign_folds(labels, groups, request.folds, request.seed)
    except ValueError as error:
        prompts = len(np.unique(groups))
        fix = f"set data.folds to at most {prompts}, or give votes on more prompts."
        if prompts == 1:
            fix = "give votes on at least two prompts; records of a prompt are never divided."
        raise InputError(str(error), request.location, fix) from error
    rows = np.bincount(folds, minlength=request.folds).tolist()
    _, sizes = np.unique(groups, return_counts=True)
    return folds, {
        **{"labels": counted, "fold_rows": rows, "prompts": len(sizes)},
        "largest_prompt": int(sizes.max()),
    }


def _folds_of_other_source(staged: Folder, train: Sequence[str], groups: Groups) -> Folds:
    """Return the fold (n,) of train with the same prompt, or -1. That fold's models never see the record."""
    planned = [staged.read_table(planned_name(name), ["row", "fold"]) for name in train]
    train_groups = np.concatenate(
        [
            staged.read_table(name, ["group"])["group"].to_numpy()[table["row"].to_numpy()]
            for name, table in zip(train, planned, strict=True)
        ]
    )
    folds = np.concatenate([table["fold"].to_numpy() for table in planned])
    known, first = np.unique(train_groups, return_index=True)
    position = np.minimum(np.searchsorted(known, groups), len(known) - 1)
    same_prompt: Folds = np.where(known[position] == groups, folds[first[position]], -1).astype(np.int16)
    return same_prompt


def _refuse_duplicates(rows: _Rows, first: Ints, location: str) -> None:
    ids = rows.table["id"].combine_chunks().take(pa.array(first))
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(repeated):
        return
    at = first[np.flatnonzero(pc.equal(ids, repeated[0]).to_numpy(zero_copy_only=False))[:2]]
    more = f"; {len(repeated)} ids are repeated" if len(repeated) > 1 else ""
    raise InputError(
        f"the id {repeated[0].as_py()!r} is used in rows {rows.where(int(at[0]))} and {rows.where(int(at[1]))}{more}",
        where=location,
        fix="give every record its own id.",
    )


def _stage_shards(
    staged: Folder, split: str, rows: _Rows, first: Ints, added: Mapping[str, pa.Array], table: pa.Table | None
) -> list[Item]:
    """Stage the rows to keep of each shard with what is added to them; return the final shards."""
    ends = np.cumsum([0, *rows.sizes])
    shards: list[Item] = []
    bounds = np.searchsorted(first, ends)
    for n, name in enumerate(rows.names):
        start, stop = int(bounds[n]), int(bounds[n + 1])
        if start == stop:
            continue
        kept = {"row": pa.array(first[start:stop] - ends[n])}
        of_shard = {column: values[start:stop] for column, values in added.items()}
        staged.write_table(planned_name(name), pa.table({**kept, **of_shard}))
        if table is not None:
            of_shard_votes = table.filter((pc.field("record") >= start) & (pc.field("record") < stop))
            staged.write_table(ballots_name(name), of_shard_votes.drop_columns("record"))
        shards.append(
            {"split": split, "staged": name, "number": len(shards), "offset": start, "rows": stop - start}
            | {"ballots": table is not None}
        )
    return shards
