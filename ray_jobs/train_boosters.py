"""Train LightGBM, XGBoost and the two-part linear model on the features, many folds at a time.

Run as: python -m ray_jobs.train_boosters --config configs/demo.yaml

The unit of resume is the fold: its worker writes model and predictions to models/<name>/fold-<k> and then a manifest,
and a fold with its manifest is not trained again.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from preference.metrics import log_loss
from ray_jobs import cli, predictions
from ray_jobs.artifacts import MANIFEST, Stage
from ray_jobs.boosters import booster_settings, booster_stage_settings, share_data
from ray_jobs.feature_store import FeatureStore
from ray_jobs.progress import Progress, say
from ray_jobs.records import Records, open_records
from ray_jobs.resources import folds_request, require_room
from ray_jobs.run import Run, StageResult, connect
from ray_jobs.settings import Booster
from ray_jobs.sources import inputs_of, study_sources, used_sources
from ray_jobs.tune import Found, found_by_search

if TYPE_CHECKING:
    import numpy.typing as npt

    from train.booster import Fit, FoldResult

IMPORTANCE = "importance.parquet"  # by feature: of a fold's model, and as means over the folds
MODEL_FILE = {"lightgbm": "model.txt", "xgboost": "model.ubj", "two_part": "model.json"}


def train_boosters(run: Run) -> list[StageResult]:
    """Make models/<name> and predictions/<name> for every booster of the settings."""
    records = open_records(run)
    features = run.finished("features", "featurize", records.fingerprint)
    store = FeatureStore.open(run, records)
    study = study_sources(run, records, features["fingerprint"])
    results = [] if study is None else [study]
    inputs = inputs_of(run, records, features["fingerprint"])
    shared: dict[str, Any] = {}  # references to data by the features it holds
    # All searches first: one that is missing shall not be noticed when other boosters have been trained.
    searched = {booster.name: found_by_search(run, booster, inputs) for booster in run.settings.boosters}
    for configured in run.settings.boosters:
        found = searched[configured.name]
        if found is not None:
            say(f"train_boosters/{configured.name}", f"with the settings that its search found: {found.parameters}")
        booster = with_best(configured, found)
        models, outputs = booster_stages(run, records, booster, inputs)
        manifest = None if run.force or models.manifest() is None else outputs.manifest()
        if manifest is None:
            connect(run)
            require_room(folds_request(booster))
            seen = repr(booster.features)
            if seen not in shared:
                shared.clear()  # data that no booster in training needs is let go
                shared[seen] = share_data(run, store, records, booster.features, used_sources(run))
            manifest = _train(run, records, booster, models, outputs, shared[seen], found)
            results.append(StageResult(models.name, False, manifest))
        else:
            results.append(StageResult(models.name, True, manifest))
    return results


def with_best(booster: Booster, found: Found | None) -> Booster:
    """A booster with the parameters that its search found, if there was one; see tune.trial.with_parameters."""
    if found is None:
        return booster
    own = {name: value for name, value in found.parameters.items() if name != "rounds"}
    rounds = found.parameters.get("rounds", booster.rounds)
    return booster.model_copy(update={"params": {**booster.params, **own}, "rounds": rounds})


def booster_stages(run: Run, records: Records, booster: Booster, inputs: Mapping[str, str]) -> tuple[Stage, Stage]:
    """The stages of models/<name> and predictions/<name>; the booster is as `with_best` gives it."""
    models = Stage(
        f"train_boosters/{booster.name}",
        run.folder / f"models/{booster.name}",
        settings=booster_stage_settings(run, booster),
        inputs=inputs,
    )
    outputs = Stage(
        models.name,
        run.folder / f"predictions/{booster.name}",
        {"fold_weights": booster.fold_weights},
        {"records": records.fingerprint, "models": models.fingerprint},
    )
    return models, outputs


def fold_stage(models: Stage, fold: int) -> Stage:
    """The stage of one fold's model."""
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
    found: Found | None,
) -> dict[str, Any]:
    import ray

    from train.cluster import wait_for
    from train.fold_runner import train_folds

    models.begin()
    outputs.begin()
    folds = list(range(len(records.manifest["metrics"]["fold_rows"])))
    missing = [fold for fold in folds if run.force or fold_stage(models, fold).manifest() is None]
    labels, _ = records.labels_and_folds()
    commit = functools.partial(_commit_fold, models=models, engine=booster.engine, labels=labels)
    progress = Progress(models.name, "folds", total=len(folds), done=len(folds) - len(missing))
    asked = booster_settings(run, booster)
    on_wait = functools.partial(say, models.name)
    ready = _no_model if found is None else found.model
    trained = train_folds(booster.engine, data, missing, asked, commit, on_wait, ready)
    for fold, kept in trained:
        progress.advance(note=f"fold {fold}: {kept} rounds")
    gather = ray.remote(num_cpus=1)(_gather)
    gathered = gather.remote(records, models, outputs, folds, booster.fold_weights == "inverse_loss")
    wait_for(gathered, "the folds' predictions", on_wait)
    rows = ray.get(gathered)
    manifests = {fold: fold_stage(models, fold).manifest() or {} for fold in folds}
    files = {f"fold-{fold}/{name}" for fold, manifest in manifests.items() for name in [*manifest["files"], MANIFEST]}
    models.commit(
        rows=rows,
        metrics={
            name: {fold: manifest["metrics"][name] for fold, manifest in manifests.items()}
            for name in ("rounds", "log_loss")
        },
        keep={*files, IMPORTANCE},
    )
    seconds = sum(manifest["seconds"] for manifest in manifests.values())
    return outputs.commit(
        rows=rows, metrics={"fold_seconds": round(seconds, 3)}, keep={f"{name}.parquet" for name in rows}
    )


def _no_model(fold: int) -> "Fit | None":
    return None


def _commit_fold(result: "FoldResult", models: Stage, engine: str, labels: "npt.NDArray[np.int8]") -> int:
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
    }
    stage.commit(rows=rows, metrics=metrics, keep=keep, seconds=result.seconds)
    return result.best_iteration


def _gather(records: Records, models: Stage, outputs: Stage, folds: list[int], inverse_loss: bool) -> dict[str, int]:
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


def _mean_importance(folds: list[pa.Table]) -> pa.Table:
    """Means over the folds' models by feature: its share of the whole gain, and mean |SHAP value|."""
    gains = np.stack([table["gain"].to_numpy() for table in folds])
    shares = gains / np.maximum(gains.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    shap = np.mean([table["shap"].to_numpy() for table in folds], axis=0)
    names = folds[0].select(["feature", "family"])
    return names.append_column("gain_share", pa.array(shares.mean(axis=0))).append_column("shap", pa.array(shap))


if __name__ == "__main__":
    sys.exit(cli.main("train_boosters", __doc__, train_boosters))
