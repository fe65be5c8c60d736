"""Write the files of a booster's folds, and combine them into predictions and importances."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from core.registry import ENGINES
from core.stage import Stage
from core.storage import CorruptFileError
from metrics.scores import log_loss
from votes import predictions

if TYPE_CHECKING:
    from core.arrays import Probabilities, Rows
    from train.boosters.data import FoldResult
    from votes.arrays import Votes
    from votes.records import Records
    from votes.swap import PositionEffect

IMPORTANCE_FILE = "importance.parquet"  # by feature: of a fold's model, and as means over the folds


def booster_fold_stage(models: Stage, fold: int) -> Stage:
    """Return the stage of one fold's model."""
    return Stage(
        f"{models.name}/fold-{fold}", models.folder / f"fold-{fold}", {"fold": fold}, {"models": models.fingerprint}
    )


def commit_fold(result: FoldResult, models: Stage, engine: str, votes: Votes) -> int:
    """Write the fold's result, then its manifest; return the rounds kept. Runs in the fold's worker."""
    stage = booster_fold_stage(models, result.fold)
    stage.begin()
    model_file = ENGINES.get(engine).model_file
    stage.folder.write_bytes(model_file, result.model.content)
    keep = {model_file, "out_of_fold.parquet", IMPORTANCE_FILE}
    rows = {"train": len(result.rows)}
    held_out = pa.table({"row": result.rows, **predictions.probability_columns(result.out_of_fold)})
    stage.folder.write_table("out_of_fold.parquet", held_out, stage.fingerprint)
    values = result.importance
    importance = pa.table(
        {"feature": values.names, "family": values.families, "gain": values.gain, "shap": values.shap}
    )
    stage.folder.write_table(IMPORTANCE_FILE, importance, stage.fingerprint)
    if result.test is not None:
        stage.folder.write_table(
            "test.parquet", pa.table(predictions.probability_columns(result.test)), stage.fingerprint
        )
        keep.add("test.parquet")
        rows["test"] = len(result.test)
    metrics = {
        "rounds": result.model.best_iteration,
        "rounds_trained": result.model.rounds_trained,
        "taken_from_search": result.model.from_search,
        "log_loss": votes_log_loss(result.out_of_fold, result.rows, votes),
        "position": result.position,
        "digest": model_digest(result.model.content),
    }
    if result.floor.any():
        metrics["floor"] = result.floor.tolist()
    stage.commit(rows=rows, metrics=metrics, keep=keep, seconds=result.seconds)
    return result.model.best_iteration


def votes_log_loss(predicted: Probabilities, records: Rows, votes: Votes) -> float:
    """Return the mean log loss over the votes on some records; `predicted` (n, k) are theirs, in ascending order."""
    rows = np.flatnonzero(np.isin(votes.records, records))
    of_votes = votes.take(rows)
    return log_loss(predicted[np.searchsorted(records, of_votes.records)], of_votes.labels, of_votes.weights)


def model_digest(model: bytes) -> str:
    """Return the digest of a model's file; its size alone would not show a flipped bit."""
    return hashlib.blake2b(model, digest_size=16).hexdigest()


def read_model(stage: Stage, engine: str) -> bytes:
    """Return the model of a finished fold's stage. Raises CorruptFileError if the file has changed."""
    manifest = stage.require("train_boosters")
    model_file = ENGINES.get(engine).model_file
    model = stage.folder.read_bytes(model_file)
    digest = manifest["metrics"].get("digest")  # None in manifests of older versions
    if digest is not None and model_digest(model) != digest:
        raise CorruptFileError(
            "the file has changed since it was written",
            str(stage.folder / model_file),
            "run train_boosters with --force.",
        )
    return model


def gather_folds(
    records: Records, models: Stage, outputs: Stage, folds: list[int], inverse_loss: bool
) -> dict[str, int]:
    """Combine the folds' files: out-of-fold predictions by row, mean test predictions, mean importances.

    Returns rows by split.
    """
    votes, fold_of_record = records.votes(), records.folds()
    out_of_fold = np.full((len(fold_of_record), records.classes), np.nan)
    tests, losses, importances = [], [], []
    for fold in folds:
        folder = booster_fold_stage(models, fold).folder
        held_out = folder.read_table("out_of_fold.parquet")
        rows = held_out["row"].to_numpy()
        out_of_fold[rows] = predictions.probabilities_from_table(held_out)
        losses.append(votes_log_loss(out_of_fold[rows], rows, votes))
        importances.append(folder.read_table(IMPORTANCE_FILE))
        if "test" in records.splits:
            tests.append(predictions.probabilities_from_table(folder.read_table("test.parquet")))
    tables = {"train": predictions.predictions_table(records.read("train", ["id"])["id"], out_of_fold, fold_of_record)}
    if tests:
        test = average_folds(tests, losses, inverse_loss)
        tables["test"] = predictions.predictions_table(records.read("test", ["id"])["id"], test)
    for split, table in tables.items():
        outputs.folder.write_table(f"{split}.parquet", table, outputs.fingerprint)
    models.folder.write_table(IMPORTANCE_FILE, _mean_importance(importances), models.fingerprint)
    return {split: len(table) for split, table in tables.items()}


def average_folds(predicted: Sequence[Probabilities], losses: Sequence[float], inverse_loss: bool) -> Probabilities:
    """Return the mean (n, k) of the folds' predictions, each weighted by 1 / held-out log loss if `inverse_loss`."""
    mean: Probabilities = np.average(predicted, axis=0, weights=1 / np.array(losses) if inverse_loss else None)
    return mean


def average_position_effects(folds: Sequence[PositionEffect | None]) -> PositionEffect | None:
    """Return the effect over all folds' held-out records; None if a fold of an older version does not have it."""
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
    """Return means over the folds' models by feature: its share of the total gain, and mean |SHAP value|."""
    gains = np.stack([table["gain"].to_numpy() for table in folds])
    shares = gains / np.maximum(gains.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    shap = np.mean([table["shap"].to_numpy() for table in folds], axis=0)
    names = folds[0].select(["feature", "family"])
    return names.append_column("gain_share", pa.array(shares.mean(axis=0))).append_column("shap", pa.array(shap))
