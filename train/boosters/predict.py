"""Predictions of a finished run's boosters for new records: its features, its folds' models, and their mean."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.progress import Progress
from core.ray_session import connect
from core.resources import processes_request, require_room
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage, require_finished
from featurize.make import features_stage, featurize_more
from featurize.outputs import plan
from featurize.store import FeatureStore
from train.boosters.fold_files import fold_stage, mean_of_folds, read_model
from train.boosters.load import Arrangement, arrange
from train.boosters.sources import inputs_of
from train.boosters.train import booster_stages, with_best
from tune.stage import found_by_search
from votes import predictions

if TYPE_CHECKING:
    from core.settings.boosters import Booster
    from votes.records import Records

# Part of fingerprints: raise it when the same models predict differently.
VERSION = 1


@dataclass(frozen=True)
class FinishedBooster:
    """A booster with the parameters it was trained with, its models, and each fold's held-out log loss."""

    booster: Booster
    models: Stage
    losses: list[float]


@dataclass(frozen=True)
class FinishedBoosters:
    """The boosters of a finished run, with the features and records that they were trained on."""

    records: Records
    features: FeatureStore
    boosters: list[FinishedBooster]


def finished_boosters(run: Run, records: Records, boosters: Sequence[Booster]) -> FinishedBoosters:
    """Some boosters of a finished run. Raises InputError if one, or its features, are not as the settings make them."""
    store = FeatureStore.open(run, records)
    outputs = plan(run.settings.featurize, records, run.settings.seed)
    features = require_finished(features_stage(run, records, outputs), "featurize")
    inputs = inputs_of(run, records, features["fingerprint"])
    found = []
    for configured in boosters:
        booster = with_best(configured, found_by_search(run, configured, inputs))
        models, predicted = booster_stages(run, records, booster, inputs)
        for stage in (models, predicted):
            require_finished(stage, "train_boosters")
        folds = [
            require_finished(fold_stage(models, fold), "train_boosters") for fold in range(run.settings.data.folds)
        ]
        found.append(FinishedBooster(booster, models, [fold["metrics"]["log_loss"] for fold in folds]))
    return FinishedBoosters(records, store, found)


def predict_boosters(run: Run, records: Records, finished: FinishedBoosters) -> list[StageResult]:
    """Make features/ and each booster's predictions/<name> of new records in `run`."""
    made = featurize_more(run, records, finished.features.folder)
    outputs = plan(run.settings.featurize, records, run.settings.seed)
    store = FeatureStore(
        run.folder / "features", finished.features.layout, {output.folder: output for output in outputs}
    )
    arrangements: dict[str, Arrangement] = {}  # by the features that a booster sees
    results = [made]
    for each in finished.boosters:
        stage = Stage(
            f"predict_boosters/{each.booster.name}",
            run.folder / f"predictions/{each.booster.name}",
            {"version": VERSION, "fold_weights": each.booster.fold_weights},
            {
                "records": records.fingerprint,
                "features": str(made.manifest["fingerprint"]),
                "models": each.models.fingerprint,
            },
        )
        manifest = None if run.force else stage.manifest()
        if manifest is None:
            connect(run)
            seen = repr(each.booster.features)
            if seen not in arrangements:
                arrangements[seen] = _arrange(finished, each.booster)
            results.append(
                StageResult(stage.name, False, _predict(run, records, store, arrangements[seen], each, stage))
            )
        else:
            results.append(StageResult(stage.name, True, manifest))
    return results


def _arrange(finished: FinishedBoosters, booster: Booster) -> Arrangement:
    """The matrices' columns as in training; a worker looks through the training records' n-grams for it."""
    import ray

    look = ray.remote(num_cpus=1)(arrange)
    found: Arrangement = ray.get(look.remote(finished.features, finished.records, booster.features))
    return found


def _predict(
    run: Run, records: Records, store: FeatureStore, arrangement: Arrangement, of: FinishedBooster, stage: Stage
) -> dict[str, Any]:
    booster = of.booster
    require_room(processes_request("predict", booster))
    stage.begin()
    shards = records.shards("test")
    made_by = stage.folder.table_fingerprints([_file(shard) for shard in shards])
    missing = [
        {"shard": shard} for shard, made in zip(shards, made_by, strict=True) if run.force or made != stage.fingerprint
    ]
    progress = Progress(stage.name, "shards", total=len(shards), done=len(shards) - len(missing))
    work = functools.partial(_predict_shard, store=store, arrangement=arrangement, of=of, stage=stage)
    for done in map_shards(missing, work, booster.cpus_per_fold):
        progress.advance(rows=done["rows"])
    values = [predictions.probabilities(stage.folder.read_table(_file(shard))) for shard in shards]
    table = predictions.table(records.read("test", ["id"])["id"], np.concatenate(values))
    stage.folder.write_table("test.parquet", table, stage.fingerprint)
    return stage.commit(rows={"test": len(table)}, keep={"test.parquet"})


def _file(shard: str) -> str:
    return f"shards/{shard}"


def _predict_shard(
    item: Item, store: FeatureStore, arrangement: Arrangement, of: FinishedBooster, stage: Stage
) -> Iterator[Item]:
    """Predict one shard with every fold's model, and write their mean."""
    from train.boosters.fold_pool import engine_of
    from train.boosters.fold_predictions import predict_records

    booster = of.booster
    split, _, name = item["shard"].partition("/")
    features = arrangement.read(store, split, name)
    permutation, signs = arrangement.layout.exchange()
    swapped = (lambda part: part.exchanged(permutation, signs)) if booster.both_orders else None
    library = engine_of(booster.engine)
    predicted = [
        predict_records(
            library,
            read_model(fold_stage(of.models, fold), booster.engine),
            features,
            booster.cpus_per_fold,
            swapped,
        )
        for fold in range(len(of.losses))
    ]
    mean = mean_of_folds(predicted, of.losses, booster.fold_weights == "inverse_loss")
    stage.folder.write_table(_file(item["shard"]), pa.table(predictions.columns(mean)), stage.fingerprint)
    yield {"rows": len(mean)}
