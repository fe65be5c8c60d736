"""Boosters' folds on Ray: as many at a time as the cluster holds, each resumable, all cancelled when one fails.

A *slot* is a placement group of ours with the CPUs of one fold and, inside it, one coordinator process that imports the
wrapper once and trains fold after fold. The wrappers see that they run in a placement group and make none of their own,
so they never queue for one; to end a slot, whatever it is doing, is to remove its group, which ends all its processes.
"""

import ctypes
import functools
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from preference.errors import InputError
from preference.swap import swap_average
from train.booster import (
    BoosterData,
    BoosterSettings,
    Engine,
    Features,
    FoldError,
    FoldResult,
    Probabilities,
    WorkerDiedError,
)
from train.cluster import describe_shortage, reserve

__all__ = ["BoosterData", "BoosterSettings", "EngineName", "FoldError", "FoldResult", "train_folds"]

EngineName = Literal["lightgbm", "xgboost"]
Committed = TypeVar("Committed")

DEATHS_ALLOWED = 3  # of one fold's processes; a fold that keeps dying would rather have more memory than more tries
LOOK_SECONDS = 1.0  # between looks for freed CPUs
QUIET_SECONDS = 3.0  # before the first message; CPUs that were just given back take a moment to show
REPORT_SECONDS = 10.0  # between messages while waiting
PREDICT_ROWS = 16384  # rows predicted at a time, to bound the memory of their swapped copies


def train_folds(
    engine: EngineName,
    data: "ray.ObjectRef[BoosterData]",
    folds: Sequence[int],
    settings: BoosterSettings,
    commit: Callable[[FoldResult], Committed],
    on_wait: Callable[[str], None] = lambda reason: None,
) -> Iterator[tuple[int, Committed]]:
    """Train `folds` and yield (fold, what `commit` returned) as each finishes.

    `commit` runs in the fold's process, so that models and predictions never pass through the caller; it must be
    picklable and may be called again for a fold whose process died inside it. The number of folds at a time follows
    the CPUs that are free; while there are none and no fold runs, `on_wait` is told why after 3 s and then every 10 s.
    A fold whose process dies is taken up by another, from its last checkpoint if the engine takes any (LightGBM does);
    the result is the same, to the byte.

    Raises InputError if a fold raises it, and FoldError(engine, fold, cause) for any other failure; either way, and
    when the caller closes the generator, all folds end and their processes and placement groups are gone.
    """
    pending = deque(folds)
    deaths = dict.fromkeys(folds, 0)
    idle: list[_Slot] = []
    running: dict[ray.ObjectRef[Any], tuple[int, _Slot]] = {}
    # Checkpoints outlive every slot, so they are kept beside the caller.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    checkpoints = ray.remote(_Checkpoints).options(num_cpus=0, scheduling_strategy=here).remote()
    next_report = None
    try:
        while pending or running:
            while pending and (slot := idle.pop() if idle else _open_slot(settings.cpus_per_fold)):
                fold = pending.popleft()
                task = slot.coordinator.run.remote(engine, fold, data, settings, commit, checkpoints)
                running[task] = fold, slot
            if not running:
                now = time.monotonic()
                next_report = now + QUIET_SECONDS if next_report is None else next_report
                if now >= next_report:
                    next_report = now + REPORT_SECONDS
                    on_wait(f"{engine}: {len(pending)} folds wait: {describe_shortage(settings.cpus_per_fold)}")
                time.sleep(LOOK_SECONDS)
                continue
            next_report = None
            finished, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            for task in finished:
                fold, slot = running.pop(task)
                try:
                    committed = ray.get(task)
                except (RayActorError, RayTaskError) as error:
                    slot.close()  # what a dead process left behind in it goes with it
                    cause = error.cause if isinstance(error, RayTaskError) else error
                    if isinstance(cause, InputError):
                        raise cause from error
                    deaths[fold] += 1
                    if not isinstance(cause, WorkerDiedError | RayActorError) or deaths[fold] > DEATHS_ALLOWED:
                        raise FoldError(engine, fold, f"{type(cause).__name__}: {cause}") from error
                    pending.appendleft(fold)
                else:
                    if pending:
                        idle.append(slot)
                    else:
                        slot.close()  # others may use the CPUs while the last folds train
                    yield fold, committed
    finally:
        for slot in [*idle, *(slot for _, slot in running.values())]:
            slot.close()
        ray.kill(checkpoints)


@dataclass(frozen=True)
class _Slot:
    group: PlacementGroup
    coordinator: ActorHandle

    def close(self) -> None:
        """End whatever runs in the slot and give its CPUs back."""
        remove_placement_group(self.group)


def _open_slot(cpus: int) -> _Slot | None:
    group = reserve(cpus)
    if group is None:
        return None
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    return _Slot(group, ray.remote(_Coordinator).options(num_cpus=0, scheduling_strategy=strategy).remote())


class _Checkpoints:
    """The last checkpoint of each fold in training."""

    def __init__(self) -> None:
        self._states: dict[int, bytes] = {}

    def save(self, fold: int, state: bytes) -> None:
        self._states[fold] = state

    def load(self, fold: int) -> bytes | None:
        return self._states.get(fold)

    def drop(self, fold: int) -> None:
        self._states.pop(fold, None)


class _Coordinator:
    """Trains fold after fold in one slot; takes no CPU itself while the wrapper's actor trains."""

    def __init__(self) -> None:
        os.register_at_fork(after_in_child=_die_with_parent)

    def run(
        self,
        engine: EngineName,
        fold: int,
        data: BoosterData,
        settings: BoosterSettings,
        commit: Callable[[FoldResult], Committed],
        checkpoints: ActorHandle,
    ) -> Committed:
        save = functools.partial(_save_checkpoint, checkpoints, fold)
        result = _train_fold(engine, fold, data, settings, ray.get(checkpoints.load.remote(fold)), save)
        committed = commit(result)
        checkpoints.drop.remote(fold)
        return committed


def _save_checkpoint(checkpoints: ActorHandle, fold: int, state: bytes) -> None:
    checkpoints.save.remote(fold, state)


def _die_with_parent() -> None:
    """Ends a forked child with its parent: xgboost_ray forks a tracker that else outlives a killed coordinator."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _engine(name: EngineName) -> Engine:
    if name == "lightgbm":
        from train import lightgbm_engine

        return lightgbm_engine
    from train import xgboost_engine

    return xgboost_engine


def _train_fold(
    engine: EngineName,
    fold: int,
    data: BoosterData,
    settings: BoosterSettings,
    checkpoint: bytes | None,
    save: Callable[[bytes], None],
) -> FoldResult:
    started = time.monotonic()
    held_out = np.flatnonzero(data.folds == fold)
    rest = np.flatnonzero(data.folds != fold)
    if not len(held_out) or not len(rest):
        raise InputError(
            f"fold {fold} holds {len(held_out)} of {len(data.folds)} records", fix="ask only for folds the data has"
        )
    library = _engine(engine)
    fit = library.fit(data.both_orders(rest), data.both_orders(held_out), settings, checkpoint, save)

    def predict(features: Features) -> Probabilities:
        averages = []
        for start in range(0, len(features), PREDICT_ROWS):
            part = features[start : start + PREDICT_ROWS]
            one_way = library.predict(fit.model, part, settings.cpus_per_fold)
            other_way = library.predict(fit.model, data.swapped(part), settings.cpus_per_fold)
            averages.append(swap_average(one_way, other_way))
        return np.concatenate(averages) if averages else np.empty((0, 3))

    return FoldResult(
        fold=fold,
        model=fit.model,
        best_iteration=fit.best_iteration,
        rounds_trained=fit.rounds_trained,
        resumed_at=fit.resumed_at,
        rows=held_out,
        out_of_fold=predict(data.features[held_out]),
        test=None if data.test_features is None else predict(data.test_features),
        seconds=time.monotonic() - started,
    )
