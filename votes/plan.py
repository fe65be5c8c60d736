"""Plan the records between the two passes of ingest: join the votes on one pair, choose outcomes, compute folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from votes.ballots import Ballots, StagedRows, as_lists
from votes.comparison import OUTCOMES
from votes.folds import assign_folds
from votes.schema import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Doubles, Folds, Groups, Ints
    from core.shards import Item
    from core.storage import Folder

_TIE: Final = 2  # of OUTCOMES


@dataclass(frozen=True)
class PlanRequest:
    """What to plan: the split, the staged shards of all splits, and the settings."""

    split: str
    names: Mapping[str, Sequence[str]]
    folds: int  # 0 to leave them out
    seed: int
    location: str
    outcomes: Sequence[str] | None
    weights: str = "per_vote"  # data.weights
    reliability: bool = False  # whether votes are weighed in training by their voters' reliability
    rejected: str = ""  # what to add to an error: how many rows are in quarantine, and why


def plan_records(staged: Folder, request: PlanRequest) -> dict[str, Any]:
    """Stage what the second pass adds to each shard; return the final shards, and metrics for the manifest.

    Raises InputError for an id that two different records have, and for votes that cannot fill the folds.
    """
    labeled = request.split != "test"
    votes = ["key", "digest", "exchanged", "shares", "voters", "times"] if labeled else []
    rows = StagedRows.read(staged, request.names[request.split], ["id_key", "group", "row", "attachments", *votes])
    planned = _plan_votes(staged, rows, request) if labeled else _Planned(np.arange(len(rows.table)), {}, None, {})
    _refuse_duplicates(rows, planned.first, request.location)
    metrics = dict(planned.metrics)
    attachments = pc.sum(rows.table["attachments"]).as_py()
    if attachments:
        metrics["attachments"] = attachments
    return {"shards": _stage_shards(staged, request.split, rows, planned), "metrics": metrics}


class _Planned(NamedTuple):
    """What becomes of a split's rows."""

    first: Ints  # (n,) the row that each record is made of
    added: Mapping[str, pa.Array]  # columns (n,) to add
    cast: pa.Table | None  # the votes one by one, if people are known or pairs have several
    metrics: dict[str, Any]


def _fold_labels(counts: Doubles) -> npt.NDArray[np.int8]:
    """Return the outcome (n,) with most votes, by which folds are alike. As many votes for A as for B are one more.

    So an exchange of A and B exchanges the labels 0 and 1.
    """
    labels = counts.argmax(axis=1)
    even = (counts[:, 0] == counts[:, 1]) & (labels < 2)
    return np.where(even, counts.shape[1], labels).astype(np.int8)


def _plan_votes(staged: Folder, rows: StagedRows, request: PlanRequest) -> _Planned:
    """Join and weigh the votes, choose the outcomes, divide the records into folds."""
    ballots = Ballots.read(rows, request.location)
    if request.weights.startswith("column:"):
        ballots = ballots.with_mean_weight_1()
    first = ballots.first
    outcomes = _outcomes(ballots.shares, request)
    counts = _scaled(ballots.counts(outcomes), request)
    labels = counts.argmax(axis=1).astype(np.int8)
    folds, of_split = _folds(staged, request, counts, rows.values("group")[first])
    counted = {
        "ties_as_halves": ballots.ties_as_halves(outcomes),
        "both_bad_as_tie": ballots.both_bad_as_tie(outcomes) if "tie" in outcomes else 0.0,
        "repeated_votes": ballots.repeated,
    }
    of_split |= {name: count for name, count in counted.items() if count}
    metrics: dict[str, Any] = of_split if request.split == "train" else {request.split: of_split}
    if request.split == "train":
        metrics |= {"outcomes": outcomes, "votes": dict(zip(outcomes, ballots.totals(outcomes), strict=True))}
    has_voters = ballots.voters.null_count < len(ballots.voters)
    weights = np.ones(len(ballots.record))
    training_votes = pa.nulls(len(first), pa.list_(pa.float64()))
    if request.reliability:
        if not has_voters and request.split == "train":
            raise InputError(
                "the votes name no voters, so their reliability cannot be fitted",
                "data.voters.model",
                "set it to none, or name the column of the voters with data.columns.voter.",
            )
        weights = ballots.reliability(outcomes) if has_voters else weights
        training_votes = as_lists(_scaled(ballots.counts(outcomes, weights), request))
    added = {
        "fold": pa.array(folds),
        "votes": as_lists(counts),
        "training_votes": training_votes,
        "voters": pa.array(ballots.per_record),
        "label": pa.array(labels),
    }
    are_kept = has_voters or len(ballots.record) > len(first)
    return _Planned(first, added, ballots.table(outcomes, weights) if are_kept else None, metrics)


def planned_name(shard: str) -> str:
    """Return the name of the staged table of what is added to a shard."""
    return f"planned/{shard}"


def ballots_name(shard: str) -> str:
    """Return the name of the staged table of a shard's votes with voters."""
    return f"ballots/{shard}"


def _scaled(counts: Doubles, request: PlanRequest) -> Doubles:
    return counts / counts.sum(axis=1, keepdims=True) if request.weights == "per_pair" else counts


def _outcomes(shares: Doubles, request: PlanRequest) -> list[str]:
    """Return the outcomes to predict: those of the settings, else A, B, and tie if anybody voted tie or both bad."""
    if request.outcomes is not None:
        return list(request.outcomes)
    return list(OUTCOMES[: 3 if shares[:, _TIE:].any() else 2])


def _folds(staged: Folder, request: PlanRequest, counts: Doubles, groups: Groups) -> tuple[Folds, dict[str, Any]]:
    """Return the folds (n,) of records with these vote counts (n, k), and what the manifest says of them."""
    labels = counts.argmax(axis=1)
    counted = dict(zip(LABELS, np.bincount(labels, minlength=counts.shape[1]).tolist(), strict=False))
    if request.split != "train":
        folds = _folds_of_other_source(staged, request.names["train"], groups)
        return folds, {"labels": counted, "with_a_prompt_of_train": int((folds >= 0).sum())}
    if not request.folds:  # nothing is trained on these records
        return np.full(len(labels), -1, np.int16), {"labels": counted}
    try:
        folds = assign_folds(_fold_labels(counts), groups, request.folds, request.seed)
    except ValueError as error:
        prompts = len(np.unique(groups))
        fix = f"set data.folds to at most {prompts}, or give votes on more prompts."
        if prompts == 1:
            fix = "give votes on at least two prompts; records of a prompt are never divided."
        raise InputError(f"{error}{request.rejected}", request.location, fix) from error
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


def _refuse_duplicates(rows: StagedRows, first: Ints, location: str) -> None:
    keys = rows.values("id_key")[first]
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if not len(again):
        return
    at = min((int(first[order[n]]), int(first[order[n + 1]])) for n in again)
    count = len(np.unique(keys[order[again]]))
    more = f"; {count} ids are repeated" if count > 1 else ""
    raise InputError(
        f"the id {rows.id(at[0])!r} is used in rows {rows.where(at[0])} and {rows.where(at[1])}{more}",
        where=location,
        fix="give every record its own id.",
    )


def _stage_shards(staged: Folder, split: str, rows: StagedRows, planned: _Planned) -> list[Item]:
    """Stage the rows to keep of each shard with what is added to them; return the final shards."""
    first, added, table = planned.first, planned.added, planned.cast
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
            cast = table.filter((pc.field("record") >= start) & (pc.field("record") < stop))
            rows_of_votes = first[cast["record"].to_numpy()] - ends[n]
            ids = staged.read_table(name, ["id"])["id"].take(pa.array(rows_of_votes))
            staged.write_table(ballots_name(name), cast.set_column(0, "id", ids))
        shards.append(
            {"split": split, "staged": name, "number": len(shards), "offset": start, "rows": stop - start}
            | {"ballots": table is not None}
        )
    return shards
