"""Measure the gain of other sources of votes: train a plain model with and without each, score primary records. A
source with other prompts, models or voters can hurt more than it helps. Only held-out primary records show it. The
plain model is the linear engine. It uses no random numbers and is strongly regularized, so differences come from the
source. On 1,000 votes its standard error is half that of small boosted trees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import ray

from core.placement import wait_for_task
from core.registry import ENGINES
from core.settings.boosters import Booster
from metrics.scores import record_log_loss
from train.boosters.engine import BoosterRecipe

if TYPE_CHECKING:
    from core.arrays import Doubles, Folds, Mask
    from train.boosters.data import BoosterData

PLAIN_ENGINE: Final = "linear"


def source_gains(
    data: ray.ObjectRef[BoosterData],
    sources: int,
    folds: Folds,
    on_wait: Callable[[str], None] = lambda reason: None,
) -> Doubles:
    """Return the decrease of each primary record's held-out log loss by each source (sources, primary), in nats.

    `folds` (primary,) are the folds of the primary records. One task runs for each source and fold.
    """
    task = ray.remote(num_cpus=1)(_fold_losses)
    tasks = {
        (source, fold): task.remote(data, source, fold)
        for source in range(sources + 1)  # 0: the primary source alone
        for fold in np.unique(folds).tolist()
    }
    losses = np.empty((sources + 1, len(folds)))
    for (source, fold), reference in tasks.items():
        wait_for_task(reference, "the study of sources", on_wait)
        losses[source, folds == fold] = ray.get(reference)
    gains: Doubles = losses[0] - losses[1:]
    return gains


def _fold_losses(data: BoosterData, source: int, fold: int) -> Doubles:
    """Return the log losses of a fold's primary records by a model of the other folds and one other source."""
    others = int(data.sources.max())
    used = np.zeros((int(data.folds.max()) + 1, others), np.bool_)
    if source:
        used[:, source - 1] = True
    engine = ENGINES.get(PLAIN_ENGINE)
    recipe = BoosterRecipe(Booster(name="plain", engine=PLAIN_ENGINE), classes=data.classes)
    prepared = engine.prepare(dataclasses.replace(data, used_sources=used), recipe)
    trainer = engine.start(prepared, recipe, fold, None)
    trainer.advance()
    held_out = data.held_out(fold)
    predicted = engine.predict(trainer.model().content, data.features.rows(held_out), 1)
    losses = record_log_loss(predicted, data.labels[held_out])
    if data.records is None:
        return losses
    # The mean over the votes of each record.
    votes = np.ones(len(held_out)) if data.weights is None else data.weights[held_out].astype(np.float64)
    starts = np.flatnonzero(np.diff(data.records[held_out], prepend=-1) > 0)
    means: Doubles = np.add.reduceat(losses * votes, starts) / np.add.reduceat(votes, starts)
    return means


def select_sources(gains: Doubles, folds: Folds) -> Mask:
    """Return the sources (folds, sources) that the models of each fold are trained on.

    A source is used if its mean gain outside the fold is more than one standard error above zero. Otherwise the
    difference could be chance, and the simpler training set wins. The fold's own losses are not used. As with the
    weights of a nested blend, models that saw the fold's votes predicted the records outside.
    """
    selected = []
    for fold in range(int(folds.max()) + 1):
        outside = gains[:, folds != fold]
        error = outside.std(axis=1, ddof=1) / np.sqrt(outside.shape[1])
        selected.append(outside.mean(axis=1) > error)
    return np.array(selected)
