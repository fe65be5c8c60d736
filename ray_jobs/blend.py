"""Combine the models' predictions and write the submission.

Run as: python -m ray_jobs.blend --config configs/demo.yaml

Four blends are made: the published weights, equal weights, and two with weights learnt on out-of-fold predictions, a
weighted mean (learnt) and a weighted geometric mean (log). The learnt ones are scored by nested folds: no record's
blend has weights that saw its vote.
"""

import csv
import io
import sys

import numpy as np

from infer.blend import (
    Floats,
    Pool,
    learn_log_weights,
    learn_weights,
    linear_pool,
    log_pool,
    nested_pool,
    preset_weights,
)
from preference.errors import InputError
from preference.metrics import log_loss
from preference.schema import SUBMISSION_COLUMNS
from ray_jobs import cli, predictions
from ray_jobs.artifacts import Stage
from ray_jobs.progress import say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult


def blend(run: Run) -> list[StageResult]:
    """Make blend/weights.json, the blends' predictions, and blend/submission.csv if there are test records."""
    records = open_records(run)
    settings = run.settings.blend
    refuse_nothing(run)
    models = run.settings.blended
    stage = Stage(
        "blend",
        run.folder / "blend",
        settings={**settings.model_dump(mode="json"), "models": models},
        inputs={"records": records.fingerprint, **predictions.model_fingerprints(run, records, models)},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("blend", True, manifest)]

    for name, some in run.settings.partial.items():
        say("blend", f"{name} predicts folds {', '.join(map(str, some))} only and is left out")
    labels, folds = records.labels_and_folds()
    out_of_fold = np.stack([predictions.read_predictions(run, records, model, "train") for model in models])
    weights = {
        "learnt": learn_weights(out_of_fold, labels),
        "log": learn_log_weights(out_of_fold, labels),
        "equal": np.full(len(models), 1 / len(models)),
    }
    try:
        weights["preset"] = preset_weights(settings.preset, models)
    except ValueError as error:
        if settings.submission == "preset":
            raise InputError(str(error), where="blend.preset", fix="name your models in it.") from error
        say("blend", f"no preset blend: {error}")
    left_out = sorted(name for name in settings.preset if name not in models)
    if left_out and "preset" in weights:
        say("blend", f"preset weights rescaled over the models present; not in this run: {', '.join(left_out)}")
    unnamed = [model for model in models if model not in settings.preset]
    if unnamed and "preset" in weights:
        say("blend", f"the preset gives no weight to {', '.join(unnamed)}")
    blends = {name: _pool(name)(out_of_fold, vector) for name, vector in weights.items()}
    blends["learnt"] = nested_pool(out_of_fold, labels, folds)
    blends["log"] = nested_pool(out_of_fold, labels, folds, learn_log_weights, log_pool)

    stage.begin()
    losses = {name: log_loss(values, labels) for name, values in blends.items()}
    named = {name: dict(zip(models, vector.tolist(), strict=True)) for name, vector in weights.items()}
    written = {"weights.json"}
    stage.folder.write_json(
        "weights.json", {"submission": settings.submission, "weights": named, "oof_log_loss": losses}
    )
    ids = records.read("train", ["id"])["id"]
    for name, values in blends.items():
        file = f"train-{name}.parquet"
        stage.folder.write_table(file, predictions.table(ids, values, folds), stage.fingerprint)
        written.add(file)
    if "test" in records.splits:
        test = np.stack([predictions.read_predictions(run, records, model, "test") for model in models])
        submitted = _pool(settings.submission)(test, weights[settings.submission])
        ids = records.read("test", ["id"])["id"]
        stage.folder.write_table("test.parquet", predictions.table(ids, submitted), stage.fingerprint)
        stage.folder.write_bytes("submission.csv", submission(records, submitted))
        written |= {"test.parquet", "submission.csv"}
    rows = {split: records.rows(split) for split in records.splits}
    manifest = stage.commit(rows=rows, metrics={"oof_log_loss": losses, "weights": named}, keep=written)
    return [StageResult("blend", False, manifest)]


def refuse_nothing(run: Run) -> None:
    """Raise InputError if the settings name no model that can be blended."""
    if not run.settings.blended:
        raise InputError(
            "no model to blend that predicts every fold",
            where="boosters, encoders, llms",
            fix="name at least one model without `folds` in the settings.",
        )


def _pool(blend: str) -> Pool:
    return log_pool if blend == "log" else linear_pool


def submission(records: Records, probabilities: Floats) -> bytes:
    """The Kaggle file: id and the three probabilities, one line per test record in input order.

    Raises RuntimeError if the probabilities are not what the file must hold.
    """
    ids = records.read("test", ["id"])["id"]
    inside = (probabilities > 0) & (probabilities < 1)
    if probabilities.shape != (len(ids), 3) or not inside.all() or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-9:
        raise RuntimeError("the blend gave numbers that are no probabilities")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUBMISSION_COLUMNS)
    writer.writerows([record_id, *row] for record_id, row in zip(ids.to_pylist(), probabilities.tolist(), strict=True))
    return text.getvalue().encode()


if __name__ == "__main__":
    sys.exit(cli.main("blend", __doc__, blend))
