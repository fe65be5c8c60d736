"""Boosters' folds on Ray: as many at a time as the cluster holds, each resumable, all cancelled when one fails.

A *slot* is a placement group of ours with the CPUs of one fold. In it a coordinator calls the wrapper once, and the
wrapper's training process takes fold after fold from the board until none is left, so that its start is paid once for
each slot. The wrappers see that they run in a placement group and make none of their own, so they never queue for one;
to end a slot, whatever it is doing, is to remove its group, which ends all its processes. A fold that shall have
several training processes (`actors_per_fold`) has a slot of as many places, in which the coordinator takes the folds
and the wrapper spreads each over its processes.
"""

import contextlib
import ctypes
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from core.errors import InputError
from core.placement import (
    LOOK_SECONDS,
    QUIET_SECONDS,
    REPORT_SECONDS,
    alive,
    ask_for,
    describe_shortage,
    is_placed,
    nodes_of,
    wait_for,
)
from train.boosters.data import (
    BoosterData,
    BoosterSettings,
    Engine,
    Fit,
    FoldError,
    FoldResult,
    Trainer,
    WorkerDiedError,
)
from train.boosters.fold_predictions import predict_fold
from train.boosters.fold_queue import Board, Failed, Finished

__all__ = [
    "BoosterData",
    "BoosterSettings",
    "EngineName",
    "FoldError",
    "FoldResult",
    "engine_of",
    "train_folds",
]

EngineName = Literal["lightgbm", "xgboost", "two_part"]
Committed = TypeVar("Committed")

# Of one fold's processes, without a new checkpoint; one that keeps dying would rather have more memory than more tries.
DEATHS_ALLOWED = 3
PAUSE_SECONDS = 4.0  # before a second board; then 4 and 9 times as long, for what took the memory to be gone


def train_folds(
    engine: EngineName,
    data: "ray.ObjectRef[BoosterData]",
    folds: Sequence[int],
    settings: BoosterSettings,
    commit: Callable[[FoldResult], Committed],
    on_wait: Callable[[str], None] = lambda reason: None,
    ready: Callable[[int], Fit | None] = lambda fold: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Committed]]:
    """Train `folds` and yield (fold, what `commit` returned) as each finishes.

    `commit` runs in the fold's process, so that models and predictions never pass through the caller; it must be
    picklable and may be called again for a fold whose process died inside it. There are as many slots as folds if the
    cluster has the CPUs, and fewer else; while no fold runs, `on_wait` is told why after 3 s and then every 10 s.
    `ready` also runs there: it gives the model of a fold that has been trained elsewhere with these very settings.
    Once `cancelled` says so, all folds end, too, and CancelledError is raised: another thread cannot close a generator.
    A fold whose process dies is taken up by another from its last checkpoint; the result is the same, to the byte. If
    the board itself dies, as Ray's memory monitor may have it, the folds that are left begin again.

    Raises InputError if a fold raises it, and FoldError(engine, fold, cause) for any other failure; either way, and
    when the caller closes the generator, all folds end and their processes and placement groups are gone.
    """
    # A slot that took the last CPU before the data is there would wait for it for ever.
    wait_for(data, "reading the features", on_wait, cancelled)
    missing = list(folds)
    boards = 0
    while missing:
        boards += 1
        trained = _train_on_board(engine, data, missing[:], settings, commit, on_wait, ready, cancelled)
        try:
            with contextlib.closing(trained):
                for fold, committed in trained:
                    missing.remove(fold)
                    yield fold, committed
        except _BoardLostError as error:
            if boards > DEATHS_ALLOWED:
                raise FoldError(engine, missing[0], str(error)) from error
            pause = PAUSE_SECONDS * boards**2
            on_wait(f"{engine}: the board of folds was lost; {len(missing)} folds begin again in {pause:.0f} s")
            _sleep(pause, cancelled)


def _sleep(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Sleep, but not on once `cancelled` says so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not cancelled():
        time.sleep(0.1)


class _BoardLostError(Exception):
    """The board's process is gone, and with it who trains what, and the checkpoints."""


def _train_on_board(
    engine: EngineName,
    data: "ray.ObjectRef[BoosterData]",
    folds: Sequence[int],
    settings: BoosterSettings,
    commit: Callable[[FoldResult], Committed],
    on_wait: Callable[[str], None],
    ready: Callable[[int], Fit | None],
    cancelled: Callable[[], bool],
) -> Generator[tuple[int, Committed]]:
    """As `train_folds`, on one board. Raises _BoardLostError if its process dies."""
    # Checkpoints outlive every slot, so the board is kept beside the caller.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote(list(folds))
    start = functools.partial(_start, engine, data, settings, commit, ready, board)
    slots: list[_Slot] = []
    left, waiting, opened = len(folds), len(folds), 0
    at_work: set[int] = set()
    next_report = time.monotonic() + QUIET_SECONDS
    try:
        while left:
            if cancelled():
                raise CancelledError
            readable = bool(ray.wait([data], timeout=0, fetch_local=False)[0])
            if not readable:
                # Lost with its node; the task that reads it again wants a CPU. Who has a fold has the data.
                for slot in [slot for slot in slots if slot.number not in at_work]:
                    slots.remove(slot)
                    slot.close()
                    _answer(board.lost.remote(slot.number, True))  # it may have taken a fold since the last look
            # One slot on its way for each fold that waits: less would hide demand from an autoscaler.
            while readable and sum(slot.number not in at_work for slot in slots) < waiting:
                slots.append(_Slot(opened, ask_for(settings.cpus_per_fold, settings.actors_per_fold)))
                opened += 1
            for slot in slots:
                if slot.task is None and is_placed(slot.group):
                    start(slot)
            running = {slot.task: slot for slot in slots if slot.task is not None}
            if running:
                next_report = time.monotonic() + QUIET_SECONDS
            elif time.monotonic() >= next_report:
                next_report = time.monotonic() + REPORT_SECONDS
                reason = "the features were lost with a node, and are read again"
                if readable:
                    reason = describe_shortage("each fold", settings.cpus_per_fold, settings.actors_per_fold)
                on_wait(f"{engine}: {left} folds wait: {reason}")
            time.sleep(LOOK_SECONDS)
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0) if running else ([], [])
            for task in ended:
                slot = running[task]
                slots.remove(slot)
                slot.close()  # others may use its CPUs; what a dead process left behind in it goes with it
                died = _why_died(task)
                if died is not None:
                    fold, deaths = _answer(board.lost.remote(slot.number, slot.nodes != alive(slot.nodes)))
                    if deaths > DEATHS_ALLOWED:
                        raise FoldError(engine, folds[0] if fold is None else fold, died)
            events, waiting, at_work = _answer(board.look.remote())
            for event in events:
                if isinstance(event, Failed):
                    if isinstance(event.error, InputError):
                        raise event.error
                    raise FoldError(engine, event.fold, str(event.error))
                left -= 1
                yield event.fold, event.committed
            # Slots that were asked for and are not needed any more give up their place in the queue.
            on_their_way = sum(slot.task is not None and slot.number not in at_work for slot in slots)
            for slot in [slot for slot in slots if slot.task is None][max(waiting - on_their_way, 0) :]:
                slots.remove(slot)
                slot.close()
    finally:
        for slot in slots:
            slot.close()
        ray.kill(board)


@dataclass
class _Slot:
    number: int
    group: PlacementGroup
    task: "ray.ObjectRef[None] | None" = None  # of its coordinator, once the group is placed
    coordinator: ActorHandle | None = None  # kept, since an actor without a handle ends
    nodes: set[str] = field(default_factory=set)  # on which it is placed

    def close(self) -> None:
        """End whatever runs in the slot and give its CPUs back."""
        remove_placement_group(self.group)


def _start(
    engine: EngineName,
    data: "ray.ObjectRef[BoosterData]",
    settings: BoosterSettings,
    commit: Callable[[FoldResult], Any],
    ready: Callable[[int], Fit | None],
    board: ActorHandle,
    slot: _Slot,
) -> None:
    slot.nodes = nodes_of(slot.group)
    strategy = PlacementGroupSchedulingStrategy(slot.group, placement_group_capture_child_tasks=True)
    slot.coordinator = ray.remote(_Coordinator).options(num_cpus=0, scheduling_strategy=strategy).remote()
    # Inside a list the reference stays one: the coordinator hands it on.
    slot.task = slot.coordinator.run.remote(engine, slot.number, [data], settings, commit, ready, board)


def _answer(reference: "ray.ObjectRef[Any]") -> Any:  # noqa: ANN401 - as the board's method
    """What the board answers. Raises _BoardLostError if it is gone."""
    try:
        return ray.get(reference)
    except (RayActorError, OutOfMemoryError) as error:
        raise _BoardLostError(str(error).splitlines()[0]) from error


def _why_died(task: "ray.ObjectRef[None]") -> str | None:
    """Why a slot's process died, or None if the slot ended well. Raises whatever else ended it."""
    try:
        ray.get(task)
    except (RayActorError, RayTaskError, OutOfMemoryError) as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, WorkerDiedError | RayActorError | OutOfMemoryError):
            return f"{type(cause).__name__}: {str(cause).splitlines()[0]}"
        raise cause from error
    return None


class _Coordinator:
    """Calls the wrapper in one slot; takes no CPU itself while the wrapper's process trains."""

    def __init__(self) -> None:
        os.register_at_fork(after_in_child=_die_with_parent)

    def run(
        self,
        engine: EngineName,
        slot: int,
        data: "list[ray.ObjectRef[BoosterData]]",
        settings: BoosterSettings,
        commit: Callable[[FoldResult], Any],
        ready: Callable[[int], Fit | None],
        board: ActorHandle,
    ) -> None:
        library = engine_of(engine)
        library.check(ray.get(data[0]), settings)
        train = functools.partial(_train_from, board, slot, engine, data, settings, commit, ready)
        if settings.actors_per_fold > 1:
            train()
        else:
            library.host(train, settings)


def _die_with_parent() -> None:
    """Ends a forked child with its parent: xgboost_ray forks a tracker that else outlives a killed coordinator."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def engine_of(name: EngineName) -> Engine:
    """The module of an engine, imported only where it trains."""
    if name == "lightgbm":
        from train.boosters.engines import lightgbm

        return lightgbm
    if name == "two_part":
        from train.boosters.engines import linear

        return linear
    from train.boosters.engines import xgboost

    return xgboost


def _train_from(
    board: ActorHandle,
    slot: int,
    engine: EngineName,
    shared: "list[ray.ObjectRef[BoosterData]]",
    settings: BoosterSettings,
    commit: Callable[[FoldResult], Any],
    ready: Callable[[int], Fit | None],
) -> None:
    """Train fold after fold from the board. Raises WorkerDiedError if a process of the wrapper's died."""
    library = engine_of(engine)
    data = ray.get(shared[0])
    prepared: Any = None
    with contextlib.suppress(_BoardLostError):  # whoever waits for the folds sees it, too, and begins again
        while (taken := _answer(board.take.remote(slot))) is not None:
            fold, checkpoint = taken
            try:
                save = functools.partial(_save_checkpoint, board, fold)
                _refuse_empty(data, fold)
                started = time.monotonic()
                fit = ready(fold)
                taken_over = fit is not None
                if fit is None:
                    if settings.actors_per_fold > 1:
                        trainer = library.start_distributed(shared, data, fold, settings, checkpoint)
                    else:
                        prepared = library.prepare(data, settings) if prepared is None else prepared
                        trainer = library.start(prepared, fold, settings, checkpoint)
                    fit = _train(trainer, save)
                committed = commit(predict_fold(library, data, fit, taken_over, fold, settings, started))
            except WorkerDiedError:
                raise
            except InputError as error:
                _answer(board.post.remote(slot, Failed(fold, error)))
                return
            except Exception as error:  # any failure of a fold ends the whole training, which tells of it
                # As text, since not every exception survives the way.
                _answer(board.post.remote(slot, Failed(fold, RuntimeError(f"{type(error).__name__}: {error}"))))
                return
            _answer(board.post.remote(slot, Finished(fold, committed)))


def _save_checkpoint(board: ActorHandle, fold: int, checkpoint: bytes) -> None:
    board.save.remote(fold, checkpoint)


def _refuse_empty(data: BoosterData, fold: int) -> None:
    held_out = len(data.held_out(fold))
    if not held_out or not len(data.rest(fold)):
        raise InputError(
            f"fold {fold} holds {held_out} of {len(data.labels)} records", fix="ask only for folds the data has"
        )


def _train(trainer: Trainer, save: Callable[[bytes], None]) -> Fit:
    while not trainer.finished:
        trainer.advance()
        if not trainer.finished:
            save(trainer.checkpoint())
    return trainer.fit()
