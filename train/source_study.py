"""What other sources of votes add: a plain model trained without and with each, judged on the primary records.

A source that differs from the primary one in its prompts, models or voters can cost more than its records are worth,
and only held-out primary records can tell.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from preference.metrics import record_log_loss
from preference.swap import swap_average
from train.booster import BoosterData

GROUPS = 5  # of folds: enough to rank sources, at half the price of ten
ROUNDS = 150
# Small trees with strong regularisation, the same for every set, so that a difference is the source's.
PARAMS: dict[str, Any] = {
    "objective": "multiclass",
    "num_class": 3,
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.2,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def source_gains(
    data: "ray.ObjectRef[BoosterData]", sources: int, primary: int, folds: npt.NDArray[np.int16], seed: int
) -> npt.NDArray[np.float64]:
    """What each source takes off the held-out log loss of each primary record (sources, primary), in nats.

    `folds` (primary,) are those of the primary records. One task for each set of sources and group of folds.
    """
    groups = folds % GROUPS
    task = ray.remote(num_cpus=1)(_losses)
    jobs = {
        (source, group): task.remote(data, source, group, seed)
        for source in range(sources + 1)  # 0: none but the primary one
        for group in range(min(GROUPS, int(folds.max()) + 1))
    }
    losses = np.empty((sources + 1, primary))
    for (source, group), job in jobs.items():
        losses[source, groups == group] = ray.get(job)
    gains: npt.NDArray[np.float64] = losses[0] - losses[1:]
    return gains


def _losses(data: BoosterData, source: int, group: int, seed: int) -> npt.NDArray[np.float64]:
    """Log loss of the primary records in a group of folds, by a model that sees the rest and one other source."""
    import lightgbm

    inside = (data.folds >= 0) & (data.folds % GROUPS == group)
    train = data.sample(np.flatnonzero(~inside & np.isin(data.sources, [0, source])), both_orders=True)
    held_out = np.flatnonzero(inside & (data.sources == 0))
    dataset = lightgbm.Dataset(train.features.joined(), train.labels, weight=train.weights)
    booster = lightgbm.train({**PARAMS, "seed": seed}, dataset, ROUNDS)
    features = data.features.rows(held_out)
    one_way, other_way = (np.asarray(booster.predict(each.joined())) for each in (features, data.swapped(features)))
    return record_log_loss(swap_average(one_way, other_way), data.labels[held_out])


def choose(gains: npt.NDArray[np.float64], folds: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Which sources (folds, sources) the models of each fold are trained on.

    A source is used if its mean gain on the records outside the fold is more than one standard error above nothing:
    no fold's choice looks at its own votes, and the simpler training set wins where the difference could be luck.
    """
    chosen = []
    for fold in range(int(folds.max()) + 1):
        outside = gains[:, folds != fold]
        error = outside.std(axis=1, ddof=1) / np.sqrt(outside.shape[1])
        chosen.append(outside.mean(axis=1) > error)
    return np.array(chosen)
