"""Prediction sets of a run: predictions/<model>/{train,test}.parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from votes.schema import PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Doubles, Folds, Mask, Probabilities
    from core.run import Run
    from votes.records import Records

QUARANTINE_FILE = "quarantine.parquet"  # next to a model's predictions: the records that the model could not score
# `replaced`: the prediction of a cheaper model stands in for the model's own.
QUARANTINE_COLUMNS = pa.schema(
    [("split", pa.string()), ("id", pa.string()), ("reason", pa.string()), ("replaced", pa.bool_())]
)
_TOLERANCE = 1e-4  # of a sum of probabilities: in float32 it is not exactly 1
_IDS_SHOWN = 5


def predictions_table(ids: pa.ChunkedArray, probabilities: Probabilities, folds: Folds | None = None) -> pa.Table:
    """Return ids and probabilities (n, k) as a prediction table; with folds (n,) for training records."""
    columns = {"id": ids.cast(pa.string()), **probability_columns(probabilities)}
    return pa.table(columns if folds is None else {**columns, "fold": folds.astype(np.int16)})


def probability_columns(probabilities: Probabilities) -> dict[str, Doubles]:
    """Return probabilities (n, k) as the columns of a prediction table."""
    return {PROBABILITIES[n]: probabilities[:, n] for n in range(probabilities.shape[1])}


def probabilities_from_table(predictions: pa.Table) -> Probabilities:
    """Return the probabilities (n, k) of a prediction table."""
    names = [name for name in PROBABILITIES if name in predictions.column_names]
    return np.stack([predictions[name].to_numpy() for name in names], axis=1)


def model_fingerprints(run: Run, records: Records, models: Sequence[str]) -> dict[str, str]:
    """Return the fingerprint of each model's finished predictions.

    Raises InputError with the name of a model that has no predictions, or predictions of other records or folds.
    """
    job_of = {
        **{booster.name: "train_boosters" for booster in run.settings.boosters},
        **{encoder.name: "train_encoder" for encoder in run.settings.finetune.encoders},
        **dict.fromkeys(run.settings.judge_models, "train_judges"),
    }
    return {
        model: str(
            run.require(f"predictions/{model}", job_of.get(model, "score_llm"), records.fingerprint)["fingerprint"]
        )
        for model in models
    }


def read_predictions(run: Run, records: Records, model: str, split: str) -> Probabilities:
    """Return the probabilities (n, k) of a model in the order of the records.

    Rows are nan in folds that this model does not predict, and for records in its quarantine.

    Raises InputError if ids are missing, if folds differ, or if the file holds values that are not probabilities.
    """
    expected = records.read(split, ["id", "fold"] if split == "train" else ["id"])
    scored = _scored_rows(run, model, split, expected)
    folder = run.folder / f"predictions/{model}"
    where = str(folder / f"{split}.parquet")
    try:
        predictions = folder.read_table(f"{split}.parquet")
    except FileNotFoundError:
        raise InputError("the file is missing", where=where, fix="run the model's job again.") from None
    _check_rows(predictions, expected.filter(pa.array(scored)), where)
    values = probabilities_from_table(predictions)
    if values.shape[1] != records.classes:
        raise InputError(
            f"it has {values.shape[1]} outcomes, the records have {records.classes}",
            where=where,
            fix="run the model's job again with --force.",
        )
    valid = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= _TOLERANCE)  # False for nan, too
    if not valid.all():
        raise InputError(
            f"no probabilities for {_first_ids(predictions['id'].filter(pa.array(~valid)))}",
            where=where,
            fix="check whether the model's training diverged, then run its job again with --force.",
        )
    result = np.full((len(expected), records.classes), np.nan)
    result[scored] = values
    return result


def _scored_rows(run: Run, model: str, split: str, records: pa.Table) -> Mask:
    """Return which records (n,) the model should predict: records of its folds outside its quarantine."""
    scored = np.ones(len(records), bool)
    if split == "train" and model in run.settings.partial:
        scored = np.isin(records["fold"].to_numpy(), run.settings.partial[model])
    scored &= ~pc.is_in(records["id"], quarantined_ids(run, model, split)).to_numpy()
    return scored


def _check_rows(predictions: pa.Table, expected: pa.Table, where: str) -> None:
    """Raise InputError if predictions have other ids or other folds than expected."""
    if not predictions["id"].equals(expected["id"]):
        reason = _id_difference(expected["id"], predictions["id"])
        raise InputError(reason, where=where, fix="run the model's job again with --force.")
    if "fold" in expected.column_names and predictions["fold"].to_pylist() != expected["fold"].to_pylist():
        raise InputError(
            "its folds differ from the records', so its models may have been trained on what they predict",
            where=where,
            fix="run the model's job again with --force.",
        )


def _id_difference(expected: pa.ChunkedArray, predicted: pa.ChunkedArray) -> str:
    missing = expected.filter(pc.invert(pc.is_in(expected, predicted)))
    extra = predicted.filter(pc.invert(pc.is_in(predicted, expected)))
    for what, ids in (("ids without a prediction", missing), ("ids of no record", extra)):
        if len(ids):
            return f"{what}: {_first_ids(ids)}"
    return "the ids are in another order than the records, or repeated"


def _first_ids(ids: pa.ChunkedArray) -> str:
    return f"{', '.join(sorted(ids.to_pylist())[:_IDS_SHOWN])}{' and more' if len(ids) > _IDS_SHOWN else ''}"


def quarantined_ids(run: Run, model: str, split: str) -> pa.Array:
    """Return the ids of records that a model could not score and that no cheaper model's prediction replaces."""
    folder = run.folder / f"predictions/{model}"
    if not folder.exists(QUARANTINE_FILE):
        return pa.array([], pa.string())
    table = folder.read_table(QUARANTINE_FILE)
    unscored = pc.and_(pc.equal(table["split"], split), pc.invert(table["replaced"]))
    return table["id"].filter(unscored).combine_chunks()
