"""Read the battles of a run: its voted records, and with predictions its pairs without votes as well."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from leaderboard.battles import battles_from_table
from leaderboard.methods import RatingInputs
from leaderboard.predicted import read_outcomes
from leaderboard.style import read_style
from votes.arrays import counts_from_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Doubles, Mask, Probabilities
    from core.run import Run
    from leaderboard.battles import Battles
    from leaderboard.predicted import PredictionSource
    from votes.records import Records

_COLUMNS = ["id", "model_a", "model_b", "group"]


@dataclass(frozen=True)
class LeaderboardInputs:
    """What ratings are made from, with the slices of the battles and remarks on what was left out."""

    rating: RatingInputs
    slices: dict[tuple[str, str], Mask]  # (n,) by dimension and name
    remarks: tuple[str, ...]


def names_models(records: Records) -> bool:
    """Return whether any training record names two models, so that a leaderboard can be made."""
    table = records.read("train", ["model_a", "model_b"])
    a, b = (pc.fill_null(table[name], "") for name in ("model_a", "model_b"))
    rated = pc.and_(pc.and_(pc.not_equal(a, ""), pc.not_equal(b, "")), pc.not_equal(a, b))
    return bool(pc.any(rated).as_py())


@dataclass(frozen=True)
class _Rows:
    """Records of one or two splits, before rows without names are dropped."""

    table: pa.Table  # id, model_a, model_b, group, fold
    counts: Doubles  # (n, k)
    predicted: Probabilities | None  # (n, 3)
    style: Doubles | None  # (n, f)
    splits: tuple[str, ...]


def read_inputs(run: Run, records: Records, source: PredictionSource | None) -> LeaderboardInputs:
    """Return the inputs. Raises InputError if no record names its models, or all name the same one."""
    rows = _read_rows(run, records, source)
    given = battles_from_table(rows.table, rows.counts, rows.style)
    battles, kept = given.battles, given.rows
    _refuse_too_few(battles, given.same, len(rows.table))
    remarks = []
    if given.unnamed:
        remarks.append(f"{given.unnamed:,} of {len(rows.table):,} records name no models, and count for nothing")
    if given.same:
        remarks.append(f"{given.same:,} records have one model on both sides, and count for nothing")
    folds = rows.table["fold"].to_numpy()[kept]
    predicted = None if rows.predicted is None else rows.predicted[kept]
    if predicted is not None:
        known = np.asarray(~np.isnan(predicted).any(axis=1))
        if not known.all():
            remarks.append(f"{int((~known).sum()):,} records have no prediction, and count for nothing")
            battles, predicted, folds, kept = battles.take(known), predicted[known], folds[known], kept[known]
    slices = _slices(records, rows.splits) if run.settings.leaderboard.slices else {}
    folds = np.where(battles.votes > 0, folds, -1).astype(np.int16)
    return LeaderboardInputs(
        RatingInputs(battles, predicted, folds, run.settings.seed),
        {name: mask[kept] for name, mask in slices.items()},
        tuple(remarks),
    )


def _read_rows(run: Run, records: Records, source: PredictionSource | None) -> _Rows:
    table = records.read("train", [*_COLUMNS, "votes", "fold"])
    counts = counts_from_table(table, records.classes)
    names = run.settings.leaderboard.style
    style = read_style(run, records, names) if names else None
    if source is None:
        return _Rows(table.drop(["votes"]), counts, None, style, ("train",))
    predicted = read_outcomes(run, records, source, "train")
    if "test" not in records.splits:
        return _Rows(table.drop(["votes"]), counts, predicted, style, ("train",))
    test = records.read("test", _COLUMNS)
    test = test.append_column("fold", pa.array(np.full(len(test), -1, np.int16)))
    return _Rows(
        pa.concat_tables([table.drop(["votes"]), test]),
        np.concatenate([counts, np.zeros((len(test), records.classes))]),
        np.concatenate([predicted, read_outcomes(run, records, source, "test")]),
        None if style is None else np.concatenate([style, np.zeros((len(test), style.shape[1]))]),
        ("train", "test"),
    )


def _refuse_too_few(battles: Battles, same: int, total: int) -> None:
    """Raise InputError unless two models have votes."""
    where = "data.train"
    if not len(battles) and same:
        raise InputError(
            f"all {same:,} records with names have one model on both sides", where, "give votes on two models."
        )
    if not len(battles):
        raise InputError(
            f"none of the {total:,} records names its models",
            where,
            "give votes with columns of models, such as model_a and model_b; `data.columns` can name them.",
        )
    if not battles.votes.any():
        raise InputError("no record that names its models has votes", where, "give votes on named models.")


def _slices(records: Records, splits: Sequence[str]) -> dict[tuple[str, str], Mask]:
    """Return masks (n,) by language, turns and code, from the texts, shard by shard."""
    turns, code, languages = [], [], []
    for split in splits:
        for shard in records.shards(split):
            texts = records.folder.read_table(shard, ["prompt", "response_a", "response_b", "language"])
            turns.append(pc.list_value_length(texts["prompt"]).to_numpy())
            has_code = [_has_code(texts[name]) for name in ("prompt", "response_a", "response_b")]
            code.append(np.logical_or.reduce(has_code))
            languages.append(texts["language"])
    masks: dict[tuple[str, str], Mask] = {}
    language = pa.chunked_array([chunk for column in languages for chunk in column.chunks], pa.string())
    for name in sorted(filter(None, pc.unique(language).to_pylist())):
        masks["language", name] = pc.fill_null(pc.equal(language, name), False).to_numpy()
    count, some_code = np.concatenate(turns), np.concatenate(code)
    masks |= {("turns", "one"): count <= 1, ("turns", "several"): count > 1}
    return masks | {("code", "some"): some_code, ("code", "none"): ~some_code}


def _has_code(column: pa.ChunkedArray) -> Mask:
    """Return whether any turn (n,) has a fenced block of code."""
    column = column.combine_chunks()
    flat = pc.fill_null(pc.match_substring(column.flatten(), "```"), False).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(column).to_numpy()
    return np.asarray(np.bincount(parents[flat], minlength=len(column)) > 0)


def of_slice(inputs: RatingInputs, mask: Mask) -> RatingInputs:
    """Return the inputs of some battles, with the models that they have."""
    battles = inputs.battles.take(mask)
    present = np.unique(np.concatenate([battles.first, battles.second]))
    place = np.zeros(len(battles.models), np.intp)
    place[present] = np.arange(len(present))
    models = tuple(battles.models[n] for n in present)
    battles = dataclasses.replace(battles, models=models, first=place[battles.first], second=place[battles.second])
    predicted = None if inputs.predicted is None else inputs.predicted[mask]
    return RatingInputs(battles, predicted, inputs.folds[mask], inputs.seed)
