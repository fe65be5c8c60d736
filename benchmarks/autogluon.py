"""Compare our pipeline with AutoGluon's best_quality: same features, same time, same held-out rows.

Run as: python -m benchmarks.autogluon --environment DIR --config configs/best.yaml --votes votes.csv
(about twice our pipeline's time per split; the first run installs AutoGluon into DIR, a virtual environment)

Each split trains both sides on four fifths of the votes and scores them on the remaining fifth. Splits are grouped by
prompt. The settings of configs/best.yaml were chosen by out-of-fold losses on the shared 1,000 votes, which are the
default here. This favors our side. To avoid it, pass --votes that chose no settings. AutoGluon gets our feature matrix.
It weights, stacks and bags its models within the time of our whole pipeline, including reading and featurizing.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.featurize import ROOT
from benchmarks.search import VOTES
from core.filesystems import list_input_files
from core.run import Run
from core.settings.loader import load_settings
from featurize.store import FeatureStore
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import record_log_loss
from train.boosters.load import load_data
from votes.folds import assign_folds
from votes.predictions import probabilities_from_table
from votes.readers.files import ENDINGS, read_rows
from votes.records import open_records

PACKAGES = ["torch==2.13.0", "autogluon.tabular[lightgbm,xgboost,catboost,fastai]"]
SPLITS = 5
THEIRS = """
import json, sys
from importlib.metadata import version
import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor

folder, seconds = sys.argv[1], float(sys.argv[2])
data = np.load(f"{folder}/features.npz")
names = [f"f{n}" for n in range(data["train"].shape[1])]
train = pd.DataFrame(data["train"], columns=names).assign(label=data["labels"])
print("version", version("autogluon.tabular"))
predictor = TabularPredictor("label", eval_metric="log_loss", path=f"{folder}/autogluon", verbosity=1)
predictor.fit(train, presets="best_quality", time_limit=seconds)
predicted = predictor.predict_proba(pd.DataFrame(data["test"], columns=names))
np.save(f"{folder}/predicted.npy", predicted[sorted(predicted.columns)].to_numpy(np.float64))
"""
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", required=True, help="folder of AutoGluon's virtual environment")
    parser.add_argument("--config", default="configs/best.yaml")
    parser.add_argument("--votes", default=str(VOTES))
    parser.add_argument("--splits", type=int, default=SPLITS, help="number of the five splits to run")
    options = parser.parse_args()
    python = _environment(Path(options.environment))
    losses: dict[str, list[Floats]] = {"ours": [], "autogluon": [], "prior": []}
    groups: list[npt.NDArray[np.int64]] = []
    with tempfile.TemporaryDirectory() as name:
        whole = _records(Path(name) / "whole", options.config, options.votes)
        split_of = assign_folds(whole["label"], whole["group"], SPLITS, seed=0)
        for split in range(options.splits):
            folder = Path(name) / f"split-{split}"
            folder.mkdir()
            held_out = split_of == split
            ours, seconds = _ours(folder, options, held_out)
            line = [python, "-c", THEIRS, str(folder), str(seconds)]
            output = subprocess.run(line, check=True, capture_output=True, text=True).stdout
            if not split:
                print(f"AutoGluon {output.partition('version ')[2].split()[0]}")
            labels = whole["label"][held_out]
            prior = np.bincount(whole["label"][~held_out], minlength=3) / (~held_out).sum()
            predicted = {"ours": ours, "autogluon": np.load(folder / "predicted.npy")}
            predicted["prior"] = np.tile(prior, (held_out.sum(), 1))
            for side, values in predicted.items():
                losses[side].append(record_log_loss(values, labels))
            groups.append(whole["group"][held_out])
            shown = ", ".join(f"{side} {values[-1].mean():.4f}" for side, values in losses.items())
            print(f"split {split}: {held_out.sum()} rows, {seconds:.0f} s each; {shown}", flush=True)
    together = {side: np.concatenate(values) for side, values in losses.items()}
    columns = np.stack([*together.values(), together["ours"] - together["autogluon"]], axis=1)
    samples = bootstrap_means(columns, np.concatenate(groups))
    for n, side in enumerate([*together, "ours minus autogluon"]):
        low, high = percentile_interval(samples[:, n])
        print(f"{side:<20} {columns[:, n].mean():+.4f} ({low:+.4f} to {high:+.4f})")


def _environment(folder: Path) -> str:
    """Return the Python of AutoGluon's virtual environment. Install it if it is missing."""
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return str(python)


def _records(run: Path, config: str, votes: str) -> dict[str, Any]:
    line = ["ray_jobs.ingest", "--config", config, "--set", f"run={run}", "--set", f"data.train={votes}"]
    subprocess.run([sys.executable, "-m", *line], check=True, cwd=ROOT, capture_output=True)
    records = open_records(Run(load_settings(Path(config).read_text("utf-8"), config, [f"run={run}"])))
    table = records.read("train", ["label", "group"])
    return {name: table[name].to_numpy() for name in ("label", "group")}


def _ours(folder: Path, options: argparse.Namespace, held_out: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """Return the blend's predictions for the held-out rows (k, 3), and the seconds of the pipeline."""
    (file,) = list_input_files(options.votes, ENDINGS)
    rows = [row for _, row in read_rows(file) if isinstance(row, dict)]
    for name, chosen in (("train", ~held_out), ("test", held_out)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as target:
            writer = csv.DictWriter(target, list(rows[0]))
            writer.writeheader()
            writer.writerows(row for row, selected in zip(rows, chosen, strict=True) if selected)
    run = folder / "run"
    overrides = [f"run={run}", f"data.train={folder}/train.csv", f"data.test={folder}/test.csv"]
    line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", options.config]
    start = time.monotonic()
    sets = [part for override in overrides for part in ("--set", override)]
    subprocess.run([*line, *sets], check=True, cwd=ROOT, capture_output=True)
    seconds = time.monotonic() - start
    settings = Run(load_settings(Path(options.config).read_text("utf-8"), options.config, overrides))
    records = open_records(settings)
    data = load_data(FeatureStore.open(settings, records), records, sparse_below=0.0)
    assert data.test_features is not None
    train, test = data.features.dense, data.test_features.dense
    np.savez(folder / "features.npz", train=train, labels=data.labels, test=test)
    return probabilities_from_table((settings.folder / "blend").read_table("test.parquet")), seconds


if __name__ == "__main__":
    main()
