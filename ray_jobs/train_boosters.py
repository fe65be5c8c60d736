"""Train LightGBM and XGBoost on the features, all folds of one after the other's, many folds at a time.

Run as: python -m ray_jobs.train_boosters --config configs/demo.yaml

The unit of resume is the fold: its worker writes model and predictions to models/<name>/fold-<k> and then a manifest,
and a fold with its manifest is not trained again.
"""

import functools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ray_jobs import cli, predictions
from ray_jobs.artifacts import MANIFEST, Stage
from ray_jobs.feature_store import FeatureStore
from ray_jobs.progress import Progress, say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult, connect, require_resources
from ray_jobs.settings import Booster

if TYPE_CHECKING:
    from train.booster import BoosterData, FoldResult

# Part of the fingerprint: raise it when the same settings train other models.
VERSION = 1
# Rounds that the death of a LightGBM worker costs at most. It draws fresh random numbers after each checkpoint, so
# this number is part of what makes a model, and of its fingerprint.
CHECKPOINT_EVERY = 100
_MODEL_FILE = {"lightgbm": "model.txt", "xgboost": "model.ubj"}


def train_boosters(run: Run) -> list[StageResult]:
    """Make models/<name> and predictions/<name> for every booster of the settings."""
    records = open_records(run)
    features = run.finished("features", "featurize", records.fingerprint)
    data: Any = None
    results = []
    for booster in run.settings.boosters:
        models = Stage(
            f"train_boosters/{booster.name}",
            run.folder / f"models/{booster.name}",
            settings={
                "seed": run.settings.seed,
                "version": VERSION,
                "checkpoint_every": CHECKPOINT_EVERY,
                **booster.model_dump(mode="json", exclude={"cpus_per_fold"}),
            },
            inputs={"records": records.fingerprint, "features": features["fingerprint"]},
        )
        outputs = Stage(
            models.name,
            run.folder / f"predictions/{booster.name}",
            {},
            {"records": records.fingerprint, "models": models.fingerprint},
        )
        manifest = None if run.force or models.manifest() is None else outputs.manifest()
        if manifest is None:
            connect(run)
            require_resources(booster.cpus_per_fold, 0, f"boosters.{booster.name}.cpus_per_fold")
            if data is None:
                data = _share_data(FeatureStore.open(run, records), records)
            manifest = _train(run, records, booster, models, outputs, data)
            results.append(StageResult(models.name, False, manifest))
        else:
            results.append(StageResult(models.name, True, manifest))
    return results


def _share_data(features: FeatureStore, records: Records) -> Any:  # noqa: ANN401 - a Ray object reference
    """The boosters' data, put into the object store by a worker; the driver never holds it."""
    import ray

    return ray.remote(num_cpus=1)(load_data).remote(features, records)


def load_data(features: FeatureStore, records: Records) -> "BoosterData":
    """The boosters' data, read from the files of finished features. Runs where it shall live, not in the driver."""
    from train.booster import BoosterData

    def matrix(split: str) -> Any:  # noqa: ANN401 - an array
        shards = [name.partition("/")[2] for name in records.shards(split)]
        return np.concatenate([features.matrix(split, shard) for shard in shards])

    labels, folds = records.labels_and_folds()
    permutation, signs = features.layout.exchange()
    test = matrix("test") if "test" in records.splits else None
    names = [column.name for column in features.layout.columns()]
    return BoosterData(matrix("train"), labels, folds, test, permutation, signs, names)


def _fold_stage(models: Stage, fold: int) -> Stage:
    return Stage(
        f"{models.name}/fold-{fold}", models.folder / f"fold-{fold}", {"fold": fold}, {"models": models.fingerprint}
    )


def _train(
    run: Run,
    records: Records,
    booster: Booster,
    models: Stage,
    outputs: Stage,
    data: Any,  # noqa: ANN401 - a Ray object reference
) -> dict[str, Any]:
    import ray

    from train.booster import BoosterSettings
    from train.fold_runner import train_folds

    models.begin()
    outputs.begin()
    folds = list(range(len(records.manifest["metrics"]["fold_rows"])))
    missing = [fold for fold in folds if run.force or _fold_stage(models, fold).manifest() is None]
    settings = BoosterSettings(
        rounds=booster.rounds,
        early_stopping_rounds=booster.early_stopping_rounds,
        params=booster.params,
        seed=run.settings.seed,
        cpus_per_fold=booster.cpus_per_fold,
        checkpoint_every=CHECKPOINT_EVERY,
    )
    commit = functools.partial(_commit_fold, models=models, engine=booster.engine)
    progress = Progress(models.name, "folds", total=len(folds), done=len(folds) - len(missing))
    trained = train_folds(booster.engine, data, missing, settings, commit, on_wait=functools.partial(say, models.name))
    for fold, kept in trained:
        progress.advance(note=f"fold {fold}: {kept} rounds")
    gather = ray.remote(num_cpus=1)(_gather)
    rows = ray.get(gather.remote(records, models, outputs, folds))
    manifests = {fold: _fold_stage(models, fold).manifest() or {} for fold in folds}
    models.commit(
        rows=rows,
        metrics={"rounds": {fold: manifest["metrics"]["rounds"] for fold, manifest in manifests.items()}},
        keep={f"fold-{fold}/{name}" for fold, manifest in manifests.items() for name in [*manifest["files"], MANIFEST]},
    )
    seconds = sum(manifest["seconds"] for manifest in manifests.values())
    return outputs.commit(
        rows=rows, metrics={"fold_seconds": round(seconds, 3)}, keep={f"{name}.parquet" for name in rows}
    )


def _commit_fold(result: "FoldResult", models: Stage, engine: str) -> int:
    """Runs in the fold's worker: write what the fold leaves, then its manifest. Returns the rounds kept."""
    stage = _fold_stage(models, result.fold)
    stage.begin()
    stage.folder.write_bytes(_MODEL_FILE[engine], result.model)
    keep = {_MODEL_FILE[engine], "out_of_fold.parquet"}
    rows = {"train": len(result.rows)}
    held_out = pa.table({"row": result.rows, **predictions.columns(result.out_of_fold)})
    stage.folder.write_table("out_of_fold.parquet", held_out, stage.fingerprint)
    if result.test is not None:
        stage.folder.write_table("test.parquet", pa.table(predictions.columns(result.test)), stage.fingerprint)
        keep.add("test.parquet")
        rows["test"] = len(result.test)
    metrics = {"rounds": result.best_iteration, "rounds_trained": result.rounds_trained}
    stage.commit(rows=rows, metrics=metrics, keep=keep, seconds=result.seconds)
    return result.best_iteration


def _gather(records: Records, models: Stage, outputs: Stage, folds: list[int]) -> dict[str, int]:
    """Put the folds' predictions together: out-of-fold by row, test as the mean over folds."""
    _, fold_of = records.labels_and_folds()
    out_of_fold = np.full((len(fold_of), 3), np.nan)
    test: Any = 0.0
    for fold in folds:
        folder = _fold_stage(models, fold).folder
        held_out = folder.read_table("out_of_fold.parquet")
        out_of_fold[held_out["row"].to_numpy()] = predictions.probabilities(held_out)
        if "test" in records.splits:
            test = test + predictions.probabilities(folder.read_table("test.parquet")) / len(folds)
    tables = {"train": predictions.table(records.read("train", ["id"])["id"], out_of_fold, fold_of)}
    if "test" in records.splits:
        tables["test"] = predictions.table(records.read("test", ["id"])["id"], test)
    for split, table in tables.items():
        outputs.folder.write_table(f"{split}.parquet", table, outputs.fingerprint)
    return {split: len(table) for split, table in tables.items()}


if __name__ == "__main__":
    sys.exit(cli.main("train_boosters", __doc__, train_boosters))
