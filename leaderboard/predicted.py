"""Read what a run's models predict for its records, from models that did not see the record's votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from core.errors import InputError
from core.stage import read_manifest
from leaderboard.battles import three_outcomes
from votes.predictions import read_predictions
from votes.schema import PROBABILITIES

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Probabilities
    from core.run import Run
    from votes.records import Records

BLEND: Final = "blend"


@dataclass(frozen=True)
class PredictionSource:
    """A model of the run, or its blend, with the fingerprint of its predictions."""

    name: str
    fingerprint: str


def find_predictions(run: Run, records: Records) -> PredictionSource | None:
    """Return the predictions that `leaderboard.predictions` names; None for votes alone.

    Raises InputError if a named model has no predictions of these records.
    """
    wanted = run.settings.leaderboard.predictions
    if wanted is None:
        return None
    if wanted in ("auto", BLEND):
        manifest = read_manifest(run.folder / BLEND)
        if manifest is not None and manifest["inputs"].get("records") == records.fingerprint:
            return PredictionSource(BLEND, str(manifest["fingerprint"]))
        if wanted == "auto":
            return None
        raise InputError(
            "the run has no blend of these records",
            "leaderboard.predictions",
            "run `tiebreak pipeline` first, or set leaderboard.predictions to null.",
        )
    folder = f"predictions/{wanted}"
    if not (run.folder / folder).exists("train.parquet"):
        known = sorted({name.partition("/")[0] for name in (run.folder / "predictions").files()})
        raise InputError(
            f"the run has no predictions of {wanted!r}",
            "leaderboard.predictions",
            f"predictions are there of {', '.join([*known, BLEND]) if known else 'no model'}.",
        )
    manifest = run.require(folder, "pipeline", records.fingerprint)
    return PredictionSource(wanted, str(manifest["fingerprint"]))


def read_outcomes(run: Run, records: Records, source: PredictionSource, split: str) -> Probabilities:
    """Return predictions (n, 3) of a split; nan where the model predicts nothing. Both bad counts as a tie.

    Predictions of training records are out-of-fold, and those of a blend nested.
    """
    if source.name != BLEND:
        return three_outcomes(read_predictions(run, records, source.name, split))
    folder = run.folder / BLEND
    if split == "train":
        submission = read_manifest(folder)["settings"]["submission"]  # type: ignore[index]
        return three_outcomes(_columns(folder.read_table(f"train-{submission}.parquet"), ""))
    return three_outcomes(_columns(folder.read_table("predictions.parquet"), f"{BLEND}_"))


def _columns(table: pa.Table, prefix: str) -> Probabilities:
    names = [f"{prefix}{name}" for name in PROBABILITIES if f"{prefix}{name}" in table.column_names]
    return np.stack([table[name].to_numpy() for name in names], axis=1)
