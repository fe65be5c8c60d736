"""Compare ten folds of a booster: ours, a loop over folds with all threads, and Ray tasks without the backends.

Run as: python -m benchmarks.boosters --rows 1000 5000 20000
(5,000 rows alone take about 6 minutes on 2 cores)

The backends are lightgbm_ray and xgboost_ray. All three sides train the same folds with the same parameters on the same
features. They train all rounds without early stopping, so they grow equally many trees. They predict held-out records
in both orders. Seconds exclude loading the features and starting Ray. Core-seconds and peak memory include all
processes of a side from start to end, and Ray's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.featurize import ROOT, write_records
from benchmarks.process_tree import Measured, measure
from core.ray_session import connect
from core.run import Run
from core.settings.loader import load_settings
from featurize.store import FeatureStore
from metrics.scores import vote_log_loss
from train.boosters.load import load_data
from votes.records import open_records
from votes.swap import swap_average

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from train.boosters.data import BoosterData, FoldResult
    from train.boosters.engine import BoosterRecipe

CONFIG = ROOT / "configs/demo.yaml"
FOLDS = 10
SIDES = ("ours", "loop", "tasks")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000])
    parser.add_argument("--engines", nargs="+", default=["lightgbm", "xgboost"], choices=["lightgbm", "xgboost"])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print("result", json.dumps(run_side(options.side, options.engines[0], options.run)))
        return
    print(f"{os.cpu_count()} cores, {FOLDS} folds, parameters and features of {CONFIG.name}")
    print("rows    engine    columns  side   seconds  to ours  core-s  peak GiB  log loss")
    with tempfile.TemporaryDirectory() as name:
        for rows in options.rows:
            run = write_records(Path(name), rows, 2048)
            line = [sys.executable, "-m", "ray_jobs.featurize", "--config", str(CONFIG), "--set", f"run={run}"]
            subprocess.run([*line, "--set", "data.shard_rows=2048"], check=True, cwd=ROOT, capture_output=True)
            for engine in options.engines:
                _print(rows, engine, {side: _measure(side, engine, run) for side in SIDES})


def _measure(side: str, engine: str, run: Path) -> tuple[Measured, dict[str, Any]]:
    line = [sys.executable, "-m", "benchmarks.boosters", "--side", side, "--engines", engine, "--run", str(run)]
    done = measure(line)
    return done, json.loads(done.output.rpartition("result ")[2])


def _print(rows: int, engine: str, sides: dict[str, tuple[Measured, dict[str, Any]]]) -> None:
    ours = sides["ours"][1]["seconds"]
    for side, (measured, result) in sides.items():
        print(
            f"{rows:<7} {engine:<9} {result['columns']:7}  {side:<6} {result['seconds']:7.1f}"
            f"  {result['seconds'] / ours:7.2f}  {measured.core_seconds:6.0f}  {measured.peak_bytes / 2**30:8.2f}"
            f"  {result['log_loss']:.4f}"
        )
    overhead = (sides["ours"][0].core_seconds - sides["tasks"][0].core_seconds) / FOLDS
    print(f"        overhead of the backend and the fold pool: {overhead:.1f} core-seconds per fold", flush=True)


def run_side(side: str, engine: str, run_folder: str) -> dict[str, Any]:
    """Train and predict all folds on one side; return its seconds, columns and log loss."""
    overrides = [f"run={run_folder}", "data.shard_rows=2048"]
    run = Run(load_settings(CONFIG.read_text(encoding="utf-8"), CONFIG.name, overrides))
    records = open_records(run)
    features = FeatureStore.open(run, records)
    booster = next(booster for booster in run.settings.boosters if booster.engine == engine)
    booster = booster.model_copy(update={"early_stopping_rounds": None})
    from train.boosters.engine import BoosterRecipe

    recipe = BoosterRecipe(booster, run.settings.seed)
    sides: dict[str, Callable[..., tuple[float, dict[int, Probabilities]]]]
    sides = {"ours": _ours, "loop": _loop, "tasks": _tasks}
    seconds, predicted = sides[side](lambda: load_data(features, records), recipe, run)
    votes, folds = records.vote_counts(), records.folds()
    out_of_fold = np.empty(votes.shape)
    for fold, probabilities in predicted.items():
        out_of_fold[folds == fold] = probabilities
    columns = len(features.layout.columns())
    return {"seconds": seconds, "columns": columns, "log_loss": vote_log_loss(out_of_fold, votes)}


def _ours(load: Callable[[], BoosterData], recipe: BoosterRecipe, run: Run) -> tuple[float, dict[int, Probabilities]]:
    from train.boosters.fold_pool import train_folds
    from train.boosters.fold_worker import FoldJob

    data = _shared(load, run)
    start = time.monotonic()
    predicted = dict(train_folds(FoldJob(recipe, data, _out_of_fold), range(FOLDS)))
    return time.monotonic() - start, predicted


def _shared(load: Callable[[], BoosterData], run: Run) -> Any:  # noqa: ANN401 - a Ray object reference
    """Start Ray; return a reference to the features in its object store."""
    import ray

    connect(run)
    data = ray.remote(num_cpus=1)(load).remote()
    ray.wait([data], fetch_local=False)
    return data


def _out_of_fold(result: FoldResult) -> Probabilities:
    return result.out_of_fold


def _loop(load: Callable[[], BoosterData], recipe: BoosterRecipe, run: Run) -> tuple[float, dict[int, Probabilities]]:
    data = load()
    start = time.monotonic()
    predicted = {fold: _plain_fold(data, fold, recipe, os.cpu_count() or 1) for fold in range(FOLDS)}
    return time.monotonic() - start, predicted


def _tasks(load: Callable[[], BoosterData], recipe: BoosterRecipe, run: Run) -> tuple[float, dict[int, Probabilities]]:
    import ray

    data = _shared(load, run)
    start = time.monotonic()
    task = ray.remote(num_cpus=1)(_plain_fold)
    jobs = {fold: task.remote(data, fold, recipe, 1) for fold in range(FOLDS)}
    predicted = {fold: ray.get(job) for fold, job in jobs.items()}
    return time.monotonic() - start, predicted


def _plain_fold(data: BoosterData, fold: int, recipe: BoosterRecipe, threads: int) -> Probabilities:
    """Train a fold with the library alone, as a careful script does; return the mean predictions of both orders."""
    settings = recipe.settings
    train, valid = (data.sample(rows, swap=True) for rows in (data.training_rows(fold), data.held_out(fold)))
    held_out = data.features.rows(data.held_out(fold))
    orders = [held_out, data.swapped(held_out)]
    if settings.engine == "lightgbm":
        import lightgbm

        params = {"objective": "multiclass", "num_class": 3, "num_threads": threads, "verbosity": -1}
        train_set = lightgbm.Dataset(train.features.joined(), train.labels)
        booster = lightgbm.train(
            {**settings.params, **params, "seed": recipe.seed, "deterministic": True, "force_row_wise": True},
            train_set,
            settings.rounds,
            [lightgbm.Dataset(valid.features.joined(), valid.labels, reference=train_set)],
        )
        original, swapped = (booster.predict(features.joined(), num_threads=threads) for features in orders)
    else:
        import xgboost

        params = {"objective": "multi:softprob", "num_class": 3, "nthread": threads, "tree_method": "hist"}
        booster = xgboost.train(
            {**settings.params, **params, "seed": recipe.seed},
            xgboost.DMatrix(train.features.joined(), train.labels, nthread=threads),
            settings.rounds,
            evals=[(xgboost.DMatrix(valid.features.joined(), valid.labels, nthread=threads), "valid")],
            verbose_eval=False,
        )
        original, swapped = (
            booster.predict(xgboost.DMatrix(features.joined(), nthread=threads)) for features in orders
        )
    return swap_average(np.asarray(original, np.float64), np.asarray(swapped, np.float64))


if __name__ == "__main__":
    main()
