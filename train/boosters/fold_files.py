"""What the folds of a booster leave, and how they become its predictions and importances."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from core.stage import Stage, require_finished
from core.storage import DamagedFileError
from metrics.scores import log_loss
from votes import predictions

if TYPE_CHECKING:
    import numpy.typing as npt

    from train.boosters.data import FoldResult
    from votes.records import Records
    from votes.swap import PositionEffect

IMPORTANCE = "importance.parquet"  # by feature: of a fold's model, and as means over the folds
MODEL_FILE = {"lightgbm": "model.txt", "xgboost": "model.ubj", "two_part": "model.json"}


def fold_stage(models: Stage, fold: int) -> Stage:
    """The stage of one fold's model."""
    return Stage(
        f"{models.name}/fold-{fold}", models.folder / f"fold-{fold}", {"fold": fold}, {"models": models.fingerprint}
    )


def commit_fold(result: FoldResult, models: Stage, engine: str, labels: npt.NDArray[np.int8]) -> int:
    """Runs in the fold's worker: write what the fold leaves, then its manifest. Returns the rounds kept."""
    stage = fold_stage(models, result.fold)
    stage.begin()
    stage.folder.write_bytes(MODEL_FILE[engine], result.model)
    keep = {MODEL_FILE[engine], "out_of_fold.parquet", IMPORTANCE}
    rows = {"train": len(result.rows)}
    held_out = pa.table({"row": result.rows, **predictions.columns(result.out_of_fold)})
    stage.folder.write_table("out_of_fold.parquet", held_out, stage.fingerprint)
    of = result.importance
    importance = pa.table({"feature": of.names, "family": of.families, "gain": of.gain, "shap": of.shap})
    stage.folder.write_table(IMPORTANCE, importance, stage.fingerprint)
    if result.test is not None:
        stage.folder.write_table("test.parquet", pa.table(predictions.columns(result.test)), stage.fingerprint)
        keep.add("test.parquet")
        rows["test"] = len(result.test)
    metrics = {
        "rounds": result.best_iteration,
        "rounds_trained": result.rounds_trained,
        "taken_from_search": result.taken,
        "log_loss": log_loss(result.out_of_fold, labels[result.rows]),
        "position": result.position,
        "digest": digest(result.model),
    }
    stage.commit(rows=rows, metrics=metrics, keep=keep, seconds=result.seconds)
    return result.best_iteration


def digest(model: bytes) -> str:
    """Of a model's file: its size alone would not tell a flipped bit."""
    return hashlib.blake2b(model, digest_size=16).hexdigest()


def read_model(stage: Stage, engine: str) -> bytes:
    """The model of a finished fold's stage. Raises DamagedFileError if it is not what was written."""
    manifest = require_finished(stage, "train_boosters")
    model = stage.folder.read_bytes(MODEL_FILE[engine])
    made = manifest["metrics"].get("digest")  # None of an older version's
    if made is not None and digest(model) != made:
        raise DamagedFileError(
            "the file is not what was written",
            str(stage.folder / MODEL_FILE[engine]),
            "run train_boosters with --force.",
        )
    return model


def gather(records: Records, models: Stage, outputs: Stage, folds: list[int], inverse_loss: bool) -> dict[str, int]:
    """Put together what the folds leave: predictions out-of-fold by row and for test as a mean, importances."""
    labels, fold_of = records.labels_and_folds()
    out_of_fold = np.full((len(fold_of), 3), np.nan)
    tests, losses, importances = [], [], []
    for fold in folds:
        folder = fold_stage(models, fold).folder
        held_out = folder.read_table("out_of_fold.parquet")
        rows = held_out["row"].to_numpy()
        out_of_fold[rows] = predictions.probabilities(held_out)
        losses.append(log_loss(out_of_fold[rows], labels[rows]))
        importances.append(folder.read_table(IMPORTANCE))
        if "test" in records.splits:
            tests.append(predictions.probabilities(folder.read_table("test.parquet")))
    tables = {"train": predictions.table(records.read("train", ["id"])["id"], out_of_fold, fold_of)}
    if tests:
        test = mean_of_folds(tests, losses, inverse_loss)
        tables["test"] = predictions.table(records.read("test", ["id"])["id"], test)
    for split, table in tables.items():
        outputs.folder.write_table(f"{split}.parquet", table, outputs.fingerprint)
    models.folder.write_table(IMPORTANCE, _mean_importance(importances), models.fingerprint)
    return {split: len(table) for split, table in tables.items()}


def mean_of_folds(
    predicted: Sequence[predictions.Floats], losses: Sequence[float], inverse_loss: bool
) -> predictions.Floats:
    """The mean (n, 3) of the folds' predictions, each weighed by 1 / its held-out log loss if `inverse_loss`."""
    mean: predictions.Floats = np.average(predicted, axis=0, weights=1 / np.array(losses) if inverse_loss else None)
    return mean


def position_of_folds(folds: Sequence[PositionEffect | None]) -> PositionEffect | None:
    """The effect over all folds' held-out records; None if one, trained by an older version, does not have it."""
    known = [fold for fold in folds if fold is not None]
    if len(known) < len(folds):
        return None
    records = [fold["records"] for fold in known]
    return {
        "records": sum(records),
        "flip_rate": float(np.average([fold["flip_rate"] for fold in known], weights=records)),
        "first_share": float(np.average([fold["first_share"] for fold in known], weights=records)),
    }


def _mean_importance(folds: list[pa.Table]) -> pa.Table:
    """Means over the folds' models by feature: its share of the whole gain, and mean |SHAP value|."""
    gains = np.stack([table["gain"].to_numpy() for table in folds])
    shares = gains / np.maximum(gains.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    shap = np.mean([table["shap"].to_numpy() for table in folds], axis=0)
    names = folds[0].select(["feature", "family"])
    return names.append_column("gain_share", pa.array(shares.mean(axis=0))).append_column("shap", pa.array(shap))
