"""Measure the value of each feature family: out-of-fold log loss with it alone, and with all families but it.

Run as: python -m benchmarks.ablation --config configs/features.yaml --set data.train=votes.csv --set run=runs/ablation
(about 15 minutes for 1,000 votes on 2 cores, a third of it embeddings)

The benchmark builds features as the job does and keeps finished ones. Then it trains the same plain LightGBM on each
set of columns, with swap augmentation in training and prediction. The number of rounds is fixed, so no label outside a
fold's training part has an effect. Intervals are 95% bootstrap intervals over prompts. Intervals of a change compare
the same records.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.progress import Progress
from core.ray_session import connect
from core.run import Run
from core.settings.loader import load_settings
from featurize.store import FeatureStore
from metrics.baselines import class_prior_baseline
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import record_log_loss
from ray_jobs.featurize import featurize
from ray_jobs.ingest import ingest
from train.boosters.load import load_data
from votes.records import open_records
from votes.swap import swap_average

if TYPE_CHECKING:
    from train.boosters.data import BoosterData

PARAMS: dict[str, Any] = {
    "objective": "multiclass",
    "num_class": 3,
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "num_threads": 1,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS = 150


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/features.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    run = Run(load_settings(Path(options.config).read_text(encoding="utf-8"), options.config, options.set))
    ingest(run)
    featurize(run)
    connect(run)
    print_table(*measure(run))


def measure(run: Run) -> tuple[dict[str, int], dict[str, npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """Return columns by family, record losses (n,) by set of columns, and the records' groups (n,).

    Sets are "prior", "all", "only <family>" and "without <family>".
    """
    import ray

    records = open_records(run)
    features = FeatureStore.open(run, records)
    families = np.array([column.family for column in features.layout.columns()])
    names = list(dict.fromkeys(families.tolist()))
    data = ray.remote(num_cpus=1)(load_data).remote(features, records, sparse_below=0.0)
    sets = {"all": families != ""}
    sets |= {f"only {name}": families == name for name in names}
    sets |= {f"without {name}": families != name for name in names}
    votes = records.votes()
    labels, folds = votes.labels, votes.folds
    task = ray.remote(num_cpus=1)(_out_of_fold)
    jobs = {
        (name, fold): task.remote(data, np.flatnonzero(chosen), fold)
        for name, chosen in sets.items()
        for fold in np.unique(folds).tolist()
    }
    probabilities = {name: np.empty((len(labels), 3)) for name in sets}
    progress = Progress("ablation", "models", len(jobs))
    for (name, fold), job in jobs.items():
        probabilities[name][folds == fold] = ray.get(job)
        progress.advance()
    probabilities["prior"] = class_prior_baseline(votes)
    losses = {name: record_log_loss(values, labels) for name, values in probabilities.items()}
    return (
        {name: int((families == name).sum()) for name in names},
        losses,
        records.read("train", ["group"])["group"].to_numpy(),
    )


def _out_of_fold(data: BoosterData, columns: npt.NDArray[np.int64], fold: int) -> npt.NDArray[np.float64]:
    """Return probabilities (k, 3) of a fold's records, from a model trained on the other folds and these columns."""
    import lightgbm

    train, labels, _ = data.sample(data.training_rows(fold), swap=True)
    booster = lightgbm.train(PARAMS, lightgbm.Dataset(train.dense[:, columns], labels), ROUNDS)
    held_out = data.features.rows(data.held_out(fold))
    original, swapped = (booster.predict(rows.dense[:, columns]) for rows in (held_out, data.swapped(held_out)))
    return swap_average(original, swapped)


def print_table(
    columns: dict[str, int], losses: dict[str, npt.NDArray[np.float64]], groups: npt.NDArray[np.int64]
) -> None:
    """Print one line per family, ordered by its loss alone."""

    def row(title: str, count: int | str, cells: Sequence[str]) -> None:
        print(f"{title:<14} {count:>8}  " + "  ".join(f"{cell:<26}" for cell in cells).rstrip())

    def spread(values: npt.NDArray[np.float64], digits: str) -> str:
        low, high = percentile_interval(bootstrap_means(values[:, None], groups)[:, 0])
        return f"{values.mean():{digits}} ({low:{digits}} to {high:{digits}})"

    row("family", "columns", ("alone", "alone minus prior", "without it minus all"))
    for name in sorted(columns, key=lambda name: float(losses[f"only {name}"].mean())):
        alone, without = losses[f"only {name}"], losses[f"without {name}"]
        cells = (
            spread(alone, ".4f"),
            spread(alone - losses["prior"], "+.4f"),
            spread(without - losses["all"], "+.4f"),
        )
        row(name, columns[name], cells)
    row(
        "all",
        sum(columns.values()),
        (spread(losses["all"], ".4f"), spread(losses["all"] - losses["prior"], "+.4f")),
    )
    row("class prior", 0, (spread(losses["prior"], ".4f"),))


if __name__ == "__main__":
    main()
