"""Train folds in one slot of the pool."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ray

from core.errors import InputError
from core.registry import ENGINES
from train.boosters.engine import TrainedModel, WorkerDiedError, train_to_end
from train.boosters.fold_predictions import predict_fold
from train.boosters.fold_queue import FoldEvent, FoldFailed, FoldFinished, QueueLostError, wait_for_reply

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from train.boosters.data import BoosterData, FoldResult
    from train.boosters.engine import BoosterEngine, BoosterRecipe

Committed = TypeVar("Committed")


def no_model(fold: int) -> TrainedModel | None:
    """Return None: no model of the fold exists yet."""
    return None


@dataclass(frozen=True)
class FoldJob(Generic[Committed]):
    """Everything that a worker needs to train any fold of one booster. It is sent to workers as it is.

    `commit` runs in the fold's process, so that models and predictions never pass through the driver. It may run again
    for a fold whose process died inside it. `existing_model` returns the model of a fold that a search has trained with
    the same settings, or None.
    """

    recipe: BoosterRecipe
    data: ray.ObjectRef[BoosterData]
    commit: Callable[[FoldResult], Committed]
    existing_model: Callable[[int], TrainedModel | None] = no_model

    @property
    def engine(self) -> BoosterEngine:
        """The engine of the recipe, in this process."""
        engine: BoosterEngine = ENGINES.get(self.recipe.settings.engine)
        return engine


class FoldWorker:
    """An actor that calls the engine's backend in one slot; it takes no CPU itself while the backend trains."""

    def __init__(self) -> None:
        os.register_at_fork(after_in_child=_die_with_parent)

    def run(self, job: FoldJob[Any], number: int, queue: ActorHandle) -> None:
        """Train folds of the queue until none waits. Raises WorkerDiedError if a process of the backend died."""
        job.engine.try_parameters(ray.get(job.data), job.recipe)
        body = functools.partial(train_claimed_folds, job, number, queue)
        if job.recipe.settings.num_workers > 1:
            body()  # each stretch of each fold starts its own processes
        else:
            job.engine.host(body, job.recipe.settings)


def _die_with_parent() -> None:
    """End a forked child with its parent: xgboost_ray forks a tracker that would outlive a killed worker."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def train_claimed_folds(job: FoldJob[Any], worker: int, queue: ActorHandle) -> None:
    """Claim and train fold after fold. Raises WorkerDiedError if a process of the backend died."""
    training = _Training(job, queue)
    with contextlib.suppress(QueueLostError):  # the pool notices it, too, and begins again
        while (claim := wait_for_reply(queue.claim.remote(worker))) is not None:
            event = training.run(*claim)
            wait_for_reply(queue.complete.remote(worker, event))
            if isinstance(event, FoldFailed):
                return


class _Training:
    """The training of several folds in one process; they share what the engine prepares."""

    def __init__(self, job: FoldJob[Any], queue: ActorHandle) -> None:
        self._job, self._queue = job, queue
        self._data: BoosterData = ray.get(job.data)
        self._prepared: Any = None

    def run(self, fold: int, checkpoint: bytes | None) -> FoldEvent:
        """Train one fold and commit it. Any failure but the death of a process ends the whole training."""
        try:
            self._refuse_empty(fold)
            started = time.monotonic()
            model = self._job.existing_model(fold) or self._train(fold, checkpoint)
            return FoldFinished(
                fold, self._job.commit(predict_fold(self._job.recipe, self._data, fold, model, started))
            )
        except WorkerDiedError:
            raise
        except InputError as error:
            return FoldFailed(fold, error)
        except Exception as error:
            # As text, since not every exception can be pickled.
            return FoldFailed(fold, RuntimeError(f"{type(error).__name__}: {error}"))

    def _refuse_empty(self, fold: int) -> None:
        held_out = len(self._data.held_out(fold))
        if not held_out or not len(self._data.training_rows(fold)):
            raise InputError(
                f"fold {fold} holds {held_out} of {len(self._data.labels)} records",
                fix="name only folds that the data has.",
            )

    def _train(self, fold: int, checkpoint: bytes | None) -> TrainedModel:
        job, engine = self._job, self._job.engine
        if job.recipe.settings.num_workers > 1:
            trainer = engine.start_distributed(job.data, self._data, job.recipe, fold, checkpoint)
        else:
            if self._prepared is None:
                self._prepared = engine.prepare(self._data, job.recipe)
            trainer = engine.start(self._prepared, job.recipe, fold, checkpoint)
        return train_to_end(trainer, lambda saved: self._queue.save.remote(fold, saved))
