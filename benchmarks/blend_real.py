"""Compare the learned blend with the best single model on every available corpus, out-of-fold.

Run as: python -m benchmarks.blend_real --data ../shared/data
(about 5 minutes on 2 cores)

The pipeline runs on each corpus with configs/best.yaml without embeddings, so torch is not needed. The models are a
forest, boosted trees and a linear model. The run generates the corpus `demo`. A corpus without its file is skipped.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.featurize import ROOT
from core.run import Run
from core.settings.loader import load_settings
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import record_log_loss
from votes.predictions import probabilities_from_table, read_predictions
from votes.records import open_records

CONFIG = "configs/best.yaml"
CORPORA = {"demo": None, "kaggle1000": "kaggle1000.csv", "autoj": "autoj_pairwise.csv", "tulu": "tulu1_human_eval.csv"}
AIM = 0.001


def main() -> None:
    """Run the pipeline on each corpus and print a line. Exit 1 if the learned blend falls behind on one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data"), help="folder of the corpora")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=list(CORPORA))
    parser.add_argument("--runs", help="folder to keep the runs in; finished stages there are skipped")
    options = parser.parse_args()
    print(
        f"{'corpus':<12}{'best single':>22}{'learned':>10}{'behind':>10}  95% interval         calibration  in-sample"
    )
    missed = 0
    for name in options.corpora:
        file = CORPORA[name]
        path = Path(options.data) / str(file)
        if file is not None and not path.exists():
            print(f"{name:<12}skipped: {path} does not exist")
            continue
        with tempfile.TemporaryDirectory() as temporary:
            line, kept_up = _line(name, Path(options.runs or temporary) / name, None if file is None else path)
            print(line, flush=True)
            missed += not kept_up
    sys.exit(1 if missed else 0)


def _line(name: str, folder: Path, votes: Path | None) -> tuple[str, bool]:
    """Return the line of a corpus, and whether the learned blend keeps up there."""
    votes_or_none = "data.synthetic={train_rows: 2000, test_rows: 100}" if votes is None else f"data.train={votes}"
    features = "[length, vocabulary, entities, style, tone, language, opening, overlap, similarity]"
    overrides = [
        f"run={folder}",
        votes_or_none,
        "blend.submission=learned",
        "featurize.families.embeddings=null",
        f"boosters.forest.features={features}",
        f"boosters.boosted.features={features}",
    ]
    line = [sys.executable, "-m", "ray_jobs.pipeline", "--config", CONFIG]
    start = time.monotonic()
    done = subprocess.run(
        [*line, *(part for override in overrides for part in ("--set", override))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"{name:<12}failed: {done.stderr[-2000:]}", False
    run = Run(load_settings((ROOT / CONFIG).read_text("utf-8"), CONFIG, overrides))
    records = open_records(run)
    columns = records.read("train", ["label", "group"])
    labels, groups = (columns[column].to_numpy() for column in ("label", "group"))
    losses = {
        model: record_log_loss(read_predictions(run, records, model, "train"), labels) for model in run.settings.blended
    }
    best = min(losses, key=lambda model: float(losses[model].mean()))
    blend = run.folder / "blend"
    learned = record_log_loss(probabilities_from_table(blend.read_table("train-learned.parquet")), labels)
    behind = learned - losses[best]
    low, high = percentile_interval(bootstrap_means(behind[:, None], groups)[:, 0])
    analysis: dict[str, Any] = blend.read_json("analysis.json")
    kept_up = bool(behind.mean() <= AIM)
    verdict = "" if kept_up else f"  MORE THAN {AIM} BEHIND"
    line_of_corpus = (
        f"{name:<12}{best:>14} {losses[best].mean():.4f}{learned.mean():>11.4f}{behind.mean():>+10.4f}"
        f"  ({low:+.4f} to {high:+.4f})  {analysis['calibration']['chosen']:<12} {analysis['in_sample_log_loss']:.4f}"
        f"  {len(np.unique(groups))} prompts, {time.monotonic() - start:.0f} s{verdict}"
    )
    return line_of_corpus, kept_up


if __name__ == "__main__":
    main()
