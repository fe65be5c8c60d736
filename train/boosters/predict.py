"""Predict new records with a finished run's boosters: the mean over the folds' models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.progress import Progress
from core.ray_session import connect
from core.resources import process_request, require_capacity
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage
from featurize.make import featurize_new_records
from featurize.outputs import features_stage, plan_outputs
from featurize.store import FeatureStore
from train.boosters.fold_files import average_folds, booster_fold_stage, read_model
from train.boosters.load import MatrixLayout, choose_matrix_layout
from train.boosters.sources import input_fingerprints
from train.boosters.stages import booster_stages
from votes import predictions

if TYPE_CHECKING:
    from core.arrays import Doubles
    from core.settings.boosters import Booster
    from votes.records import Records

# Part of fingerprints: raise it when the same models predict differently.
VERSION = 1
# Returns the best parameters of a booster's search, by the fingerprints of the booster's inputs. Returns None if the
# settings have no search for it. Raises InputError if the search is not finished.
BestParametersFinder = Callable[[Run, "Booster", Mapping[str, str]], Mapping[str, Any] | None]


@dataclass(frozen=True)
class FinishedBooster:
    """A booster with the parameters it was trained with, its models, each fold's held-out log loss and floor."""

    booster: Booster
    models: Stage
    losses: list[float]
    floors: list[Doubles | None]  # (k,) least probabilities


@dataclass(frozen=True)
class FinishedBoosters:
    """The boosters of a finished run, with the features and records that they were trained on."""

    records: Records
    features: FeatureStore
    boosters: list[FinishedBooster]


def finished_boosters(
    run: Run, records: Records, boosters: Sequence[Booster], best_parameters: BestParametersFinder
) -> FinishedBoosters:
    """Return some boosters of a finished run.

    Raises InputError if one of them or its features are missing, or were made with other settings.
    """
    store = FeatureStore.open(run, records)
    outputs = plan_outputs(run, records)
    features = features_stage(run, records, outputs).require("featurize")
    inputs = input_fingerprints(run, records, features["fingerprint"])
    finished = []
    for configured in boosters:
        booster = configured.with_parameters(best_parameters(run, configured, inputs))
        models, predicted = booster_stages(run, records, booster, inputs)
        for stage in (models, predicted):
            stage.require("train_boosters")
        manifests = [booster_fold_stage(models, n).require("train_boosters") for n in range(run.settings.data.folds)]
        folds = [manifest["metrics"] for manifest in manifests]
        floors = [np.array(fold["floor"]) if "floor" in fold else None for fold in folds]
        finished.append(FinishedBooster(booster, models, [fold["log_loss"] for fold in folds], floors))
    return FinishedBoosters(records, store, finished)


def predict_boosters(run: Run, records: Records, finished: FinishedBoosters) -> list[StageResult]:
    """Write features/ and each booster's predictions/<name> of new records in `run`."""
    features = featurize_new_records(run, records, finished.features.folder)
    outputs = plan_outputs(run, records)
    store = FeatureStore(
        run.folder / "features", finished.features.layout, {output.folder: output for output in outputs}
    )
    matrix_layouts: dict[str, MatrixLayout] = {}  # by the features that a booster sees
    results = [features]
    for trained in finished.boosters:
        booster = trained.booster
        stage = Stage(
            f"predict_boosters/{booster.name}",
            run.folder / f"predictions/{booster.name}",
            {"version": VERSION, "fold_weights": booster.fold_weights},
            {
                "records": records.fingerprint,
                "features": str(features.manifest["fingerprint"]),
                "models": trained.models.fingerprint,
            },
        )
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            connect(run)
            families = repr(booster.features)
            if families not in matrix_layouts:
                matrix_layouts[families] = _choose_layout(finished, booster)
            task = _ShardTask(trained, store, matrix_layouts[families], stage)
            manifest = _predict(run, records, task)
        results.append(StageResult(stage.name, cached, manifest))
    return results


def _choose_layout(finished: FinishedBoosters, booster: Booster) -> MatrixLayout:
    """Return the matrices' columns as in training; a worker reads the training records' n-grams for it."""
    import ray

    task = ray.remote(num_cpus=1)(choose_matrix_layout)
    matrix_layout: MatrixLayout = ray.get(task.remote(finished.features, finished.records, booster.features))
    return matrix_layout


@dataclass(frozen=True)
class _ShardTask:
    """Everything needed to predict any shard with one booster."""

    trained: FinishedBooster
    store: FeatureStore  # of the new records
    matrix_layout: MatrixLayout
    stage: Stage


def _predict(run: Run, records: Records, task: _ShardTask) -> dict[str, Any]:
    stage, booster = task.stage, task.trained.booster
    require_capacity(process_request("predict", booster))
    stage.begin()
    shards = records.shards("test")
    fingerprints = stage.folder.table_fingerprints([_file(shard) for shard in shards])
    missing = [
        {"shard": shard}
        for shard, written in zip(shards, fingerprints, strict=True)
        if run.force or written != stage.fingerprint
    ]
    progress = Progress(stage.name, "shards", total=len(shards), done=len(shards) - len(missing))
    for done in map_shards(missing, functools.partial(_predict_shard, task=task), booster.cpus_per_worker):
        progress.advance(rows=done["rows"])
    values = [predictions.probabilities_from_table(stage.folder.read_table(_file(shard))) for shard in shards]
    table = predictions.predictions_table(records.read("test", ["id"])["id"], np.concatenate(values))
    stage.folder.write_table("test.parquet", table, stage.fingerprint)
    return stage.commit(rows={"test": len(table)}, keep={"test.parquet"})


def _file(shard: str) -> str:
    return f"shards/{shard}"


def _predict_shard(item: Item, task: _ShardTask) -> Iterator[Item]:
    """Predict one shard with every fold's model, and write their mean."""
    from train.boosters.fold_predictions import predict_matrix

    trained, matrix_layout, stage = task.trained, task.matrix_layout, task.stage
    booster = trained.booster
    split, _, name = item["shard"].partition("/")
    features = matrix_layout.read(task.store, split, name)
    permutation, signs = matrix_layout.layout.exchange()
    predicted = [
        predict_matrix(
            booster,
            read_model(booster_fold_stage(trained.models, fold), booster.engine),
            features,
            lambda part: part.exchanged(permutation, signs),
            floor,
        )
        for fold, floor in enumerate(trained.floors)
    ]
    mean = average_folds(predicted, trained.losses, booster.fold_weights == "inverse_loss")
    stage.folder.write_table(_file(item["shard"]), pa.table(predictions.probability_columns(mean)), stage.fingerprint)
    yield {"rows": len(mean)}
