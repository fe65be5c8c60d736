"""Compare our search with scikit-learn's RandomizedSearchCV, with the same candidates and folds.

Run as: python -m benchmarks.search
(about 14 minutes on 2 cores, most of them scikit-learn's)

Both sides get 10 candidates of the published space for XGBoost and 3 grouped folds. Features are the 900 Word2Vec
columns of the published recipe, from the shared 1,000 real votes if they exist, otherwise from the demo's pairs.
scikit-learn uses both cores (n_jobs=2, one thread each). Its time starts when its features are in memory, ours before
Ray starts. scikit-learn trains each candidate to its end. Ours runs twice. With ASHA alone, the loss is that of all
rounds on both sides. With early stopping as well, as users run it, the loss is the lowest of a fold's rounds, selected
on the rows that score it. By definition it is lower, so that comparison is optimistic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.featurize import ROOT
from benchmarks.process_tree import measure
from core.ray_session import connect
from core.run import Run
from core.settings.loader import load_settings
from featurize.store import FeatureStore
from train.boosters.load import load_data
from tune.stage import best_trial
from votes.records import open_records

if TYPE_CHECKING:
    from core.settings.tune import Search
    from train.boosters.data import BoosterData

VOTES = ROOT.parent / "shared/data/kaggle1000.csv"
CANDIDATES, FOLDS, SEED = 10, 3, 1
OURS = {"ASHA alone": None, "ASHA and early stopping": 30}  # rounds of patience
CLOSE = 0.001  # nats; tolerance of a reached loss


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=[*OURS, "scikit-learn"], help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        patience = OURS.get(options.side)
        result = _ours(options.run, patience) if options.side in OURS else _scikit_learn(options.run)
        print("result", json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as name:
        for job in ("ingest", "featurize"):
            line = [sys.executable, "-m", f"ray_jobs.{job}", "--config", "configs/seed.yaml"]
            sets = [part for override in _overrides(f"{name}/run") for part in ("--set", override)]
            subprocess.run([*line, *sets], check=True, cwd=ROOT, capture_output=True)
        results = {}
        for side in (*OURS, "scikit-learn"):
            line = [sys.executable, "-m", "benchmarks.search", "--side", side, "--run", f"{name}/run"]
            results[side] = json.loads(measure(line).output.rpartition("result ")[2])
    sklearn = results["scikit-learn"]
    print(f"{os.cpu_count()} cores, {CANDIDATES} candidates x {FOLDS} folds, {sklearn['rows']} x {sklearn['columns']}")
    print(f"RandomizedSearchCV: best mean loss {sklearn['best']:.4f} after {sklearn['seconds']:.0f} s")
    for side in OURS:
        ours = results[side]
        print(
            f"ours, {side}: best mean loss {ours['best']:.4f} after {ours['seconds']:.0f} s; "
            f"ASHA stopped {ours['stopped']} trials"
        )
        reached = [at for at, loss in ours["trials"] if loss <= sklearn["best"] + CLOSE]
        if reached:
            share = min(reached) / sklearn["seconds"]
            print(
                f"  reaches that loss (within {CLOSE}) after {min(reached):.0f} s, {share:.2f} of scikit-learn's time"
            )
        else:
            print("  never reaches that loss")


def _overrides(run: str) -> list[str]:
    synthetic = "data.synthetic={train_rows: 1000, test_rows: 1}"
    votes = f"data.train={VOTES}" if VOTES.exists() else synthetic
    vectors = "featurize.families=[{family: word2vec, cosines: false}]"
    return [f"run={run}", votes, f"data.folds={FOLDS}", vectors, "boosters=[]", "data.shard_rows=256"]


def _load(run_folder: str) -> tuple[Run, BoosterData]:
    run = Run(load_settings((ROOT / "configs/seed.yaml").read_text("utf-8"), "seed.yaml", _overrides(run_folder)))
    records = open_records(run)
    return run, load_data(FeatureStore.open(run, records), records)


def _search() -> Search:
    from core.settings.tune import Search

    return Search(booster="xgboost", trials=CANDIDATES, folds=FOLDS, grace_rounds=50, space="published")


def _candidates() -> list[dict[str, Any]]:
    from tune.space import sample_candidates

    return sample_candidates(_search().space_of("xgboost"), SEED, CANDIDATES)


def _scikit_learn(run_folder: str) -> dict[str, Any]:
    from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV
    from xgboost import XGBClassifier

    _, data = _load(run_folder)
    names = {"rounds": "n_estimators", "eta": "learning_rate", "alpha": "reg_alpha", "lambda": "reg_lambda"}
    # Dicts with one value per parameter are drawn without replacement: each candidate once.
    space = [{names.get(name, name): [value] for name, value in candidate.items()} for candidate in _candidates()]
    search = RandomizedSearchCV(
        XGBClassifier(tree_method="hist", n_jobs=1, random_state=SEED),
        space,
        n_iter=CANDIDATES,
        scoring="neg_log_loss",
        cv=PredefinedSplit(data.folds),
        n_jobs=2,
        refit=False,
    )
    start = time.monotonic()
    search.fit(data.features.dense, data.labels)
    seconds = time.monotonic() - start
    rows, columns = data.features.dense.shape
    best = float(-np.max(search.cv_results_["mean_test_score"]))
    return {"seconds": seconds, "best": best, "rows": rows, "columns": columns}


def _ours(run_folder: str, patience: int | None) -> dict[str, Any]:
    import ray

    from core.settings.boosters import Booster
    from train.boosters.engine import BoosterRecipe
    from tune.search import TrialResult, run_trials
    from tune.trial import SearchJob

    run, data = _load(run_folder)
    results: list[TrialResult] = []
    booster = Booster(
        name="xgboost", engine="xgboost", rounds=280, early_stopping_rounds=patience, checkpoint_every=50, swap="none"
    )
    start = time.monotonic()
    connect(run)
    before = time.monotonic() - start
    with tempfile.TemporaryDirectory() as storage:
        job = SearchJob(ray.put(data), BoosterRecipe(booster, SEED), _search(), _candidates())
        run_trials(job, [], results.append, storage)
    return {
        "seconds": time.monotonic() - start,
        "best": best_trial(results).log_loss,
        "trials": [(before + result.at, result.log_loss) for result in results if not result.stopped],
        "stopped": sum(result.stopped for result in results),
    }


if __name__ == "__main__":
    main()
