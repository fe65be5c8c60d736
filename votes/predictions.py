"""Prediction sets of a run: predictions/<model>/{train,test}.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from votes.schema import PROBABILITIES, TEST_PREDICTIONS, TRAIN_PREDICTIONS

if TYPE_CHECKING:
    from core.run import Run
    from votes.records import Records

Floats = npt.NDArray[np.float64]
QUARANTINE = "quarantine.parquet"  # beside a model's predictions: the records it could not score
# `replaced`: a cheaper model's prediction stands in for its own.
QUARANTINED = pa.schema(
    [("split", pa.string()), ("id", pa.string()), ("reason", pa.string()), ("replaced", pa.bool_())]
)


def table(ids: pa.ChunkedArray, values: Floats, folds: npt.NDArray[np.int16] | None = None) -> pa.Table:
    """A prediction table: ids and probabilities (n, 3); with folds (n,) for training records."""
    named = {"id": ids, **columns(values)}
    if folds is None:
        return pa.table(named).cast(TEST_PREDICTIONS)
    return pa.table({**named, "fold": folds}).cast(TRAIN_PREDICTIONS)


def columns(values: Floats) -> dict[str, Floats]:
    """Probabilities (n, 3) as the columns of a prediction table."""
    return {name: values[:, n] for n, name in enumerate(PROBABILITIES)}


def probabilities(found: pa.Table) -> Floats:
    """Probabilities (n, 3) from the columns of a prediction table."""
    return np.stack([found[name].to_numpy() for name in PROBABILITIES], axis=1)


def model_fingerprints(run: Run, records: Records, models: Sequence[str]) -> dict[str, str]:
    """Fingerprint of each model's finished predictions.

    Raises InputError naming a model that has none, or whose predictions are for other records or folds.
    """
    job_of = {
        **{booster.name: "train_boosters" for booster in run.settings.boosters},
        **{encoder.name: "train_encoder" for encoder in run.settings.finetune.encoders},
    }
    return {
        model: str(
            run.finished(f"predictions/{model}", job_of.get(model, "score_llm"), records.fingerprint)["fingerprint"]
        )
        for model in models
    }


def read_predictions(run: Run, records: Records, model: str, split: str) -> Floats:
    """Probabilities (n, 3) of a model in the order of the records.

    Raises InputError if ids are missing, or what stands there is no probability.

    The rows of training records of folds that the settings leave out for this model, and of records in its quarantine,
    are nan.
    """
    columns_read = ["id", "fold"] if split == "train" else ["id"]
    wanted = records.read(split, columns_read)
    there = np.ones(len(wanted), bool)
    if split == "train" and model in run.settings.partial:
        there = np.isin(wanted["fold"].to_numpy(), run.settings.partial[model])
    there &= ~pc.is_in(wanted["id"], quarantined(run, model, split)).to_numpy()
    ids = wanted["id"].filter(pa.array(there))
    where = str(run.folder / f"predictions/{model}/{split}.parquet")
    try:
        found = (run.folder / f"predictions/{model}").read_table(f"{split}.parquet")
    except FileNotFoundError:
        raise InputError("the file is gone", where=where, fix="run the model's job again.") from None
    if not found["id"].equals(ids):
        raise InputError(_what_differs(ids, found["id"]), where=where, fix="run the model's job again with --force.")
    if split == "train" and not found["fold"].to_numpy().tolist() == wanted["fold"].to_numpy()[there].tolist():
        raise InputError(
            "its folds are not those of the records, so its models may have been trained on what they predict",
            where=where,
            fix="run the model's job again with --force.",
        )
    values = probabilities(found)
    wrong = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= 1e-4))  # nan is wrong, too
    if wrong.any():
        raise InputError(
            f"no probabilities for {_some(ids.filter(pa.array(wrong)))}",
            where=where,
            fix="see whether the model's training diverged, then run its job again with --force.",
        )
    result = np.full((len(wanted), len(PROBABILITIES)), np.nan)
    result[there] = values
    return result


def _what_differs(wanted: pa.ChunkedArray, found: pa.ChunkedArray) -> str:
    missing, extra = pc.invert(pc.is_in(wanted, found)), pc.invert(pc.is_in(found, wanted))
    for what, ids in (("ids without a prediction", wanted.filter(missing)), ("ids of no record", found.filter(extra))):
        if len(ids):
            return f"{what}: {_some(ids)}"
    return "the ids are not in the order of the records, or stand there twice"


def _some(ids: pa.ChunkedArray) -> str:
    return f"{', '.join(sorted(ids.to_pylist())[:5])}{' and more' if len(ids) > 5 else ''}"


def quarantined(run: Run, model: str, split: str) -> pa.Array:
    """Ids of the records that a model could not score and that no cheaper model's prediction stands in for."""
    folder = run.folder / f"predictions/{model}"
    if not folder.exists(QUARANTINE):
        return pa.array([], pa.string())
    table = folder.read_table(QUARANTINE)
    there = pc.and_(pc.equal(table["split"], split), pc.invert(table["replaced"]))
    return table["id"].filter(there).combine_chunks()
