"""What other sources of votes add: a plain model trained without and with each, judged on the primary records.

A source that differs from the primary one in its prompts, models or voters can cost more than its records are worth,
and only held-out primary records can tell. The model is the two-part linear one: without random numbers, and stiff, so
that a difference is the source's (on 1,000 votes its standard error is half that of small boosted trees).
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import ray

from core.placement import wait_for
from metrics.scores import record_log_loss
from train.boosters.data import BoosterData, BoosterSettings
from train.boosters.engines.linear import TwoPartTrainer, predict


def source_gains(
    data: "ray.ObjectRef[BoosterData]",
    sources: int,
    folds: npt.NDArray[np.int16],
    on_wait: Callable[[str], None] = lambda reason: None,
) -> npt.NDArray[np.float64]:
    """What each source takes off the held-out log loss of each primary record (sources, primary), in nats.

    `folds` (primary,) are those of the primary records. One task for each source and fold.
    """
    task = ray.remote(num_cpus=1)(_losses)
    jobs = {
        (source, fold): task.remote(data, source, fold)
        for source in range(sources + 1)  # 0: none but the primary one
        for fold in np.unique(folds).tolist()
    }
    losses = np.empty((sources + 1, len(folds)))
    for (source, fold), job in jobs.items():
        wait_for(job, "the study of sources", on_wait)
        losses[source, folds == fold] = ray.get(job)
    gains: npt.NDArray[np.float64] = losses[0] - losses[1:]
    return gains


def _losses(data: BoosterData, source: int, fold: int) -> npt.NDArray[np.float64]:
    """Log loss of the primary records in a fold, by a model that sees the other folds and one other source."""
    others = int(data.sources.max())
    used = np.zeros((int(data.folds.max()) + 1, others), np.bool_)
    if source:
        used[:, source - 1] = True
    trainer = TwoPartTrainer(dataclasses.replace(data, used_sources=used), fold, BoosterSettings(1, None))
    trainer.advance()
    held_out = data.held_out(fold)
    return record_log_loss(predict(trainer.fit().model, data.features.rows(held_out), 1), data.labels[held_out])


def choose(gains: npt.NDArray[np.float64], folds: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Which sources (folds, sources) the models of each fold are trained on.

    A source is used if its mean gain on the records outside the fold is more than one standard error above nothing,
    so that the simpler training set wins where the difference could be luck. As with the weights of a nested blend, the
    records outside were predicted by models that saw the fold's votes; the fold's own losses have no say.
    """
    chosen = []
    for fold in range(int(folds.max()) + 1):
        outside = gains[:, folds != fold]
        error = outside.std(axis=1, ddof=1) / np.sqrt(outside.shape[1])
        chosen.append(outside.mean(axis=1) > error)
    return np.array(chosen)
