"""Boosters' folds on Ray: as many at a time as the cluster holds, each resumable, all cancelled when one fails.

A *slot* is a placement group with the CPUs of one fold. In it a FoldWorker calls the engine's backend (lightgbm_ray or
xgboost_ray) once, and the backend's training process claims fold after fold from the queue until none waits, so that
its start is paid once for each slot. The backends see that they run in a placement group and make none of their own,
so they never wait for one. Removing the group ends all processes of the slot, whatever they do. With num_workers > 1 a
slot has one bundle for each process: the FoldWorker claims the folds, and the backend distributes each over them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from core.errors import InputError
from core.placement import (
    LOOK_SECONDS,
    QUIET_SECONDS,
    REPORT_SECONDS,
    alive,
    describe_shortage,
    is_placed,
    nodes_of,
    request_group,
    wait_for,
)
from train.boosters.data import FoldError
from train.boosters.engine import WorkerDiedError
from train.boosters.fold_queue import Failed, FoldQueue, QueueLostError, queue_reply
from train.boosters.fold_worker import Committed, FoldJob, FoldWorker

if TYPE_CHECKING:
    from ray.actor import ActorHandle

# Of one fold's workers without a new checkpoint. A fold that keeps killing them needs more memory, not more tries.
FOLD_DEATHS_ALLOWED = 3
PAUSE_SECONDS = 4.0  # before a second queue; then 4 and 9 times as long, until what took the memory is gone


def train_folds(
    job: FoldJob[Committed],
    folds: Sequence[int],
    on_wait: Callable[[str], None] = lambda reason: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Committed]]:
    """Train `folds` and yield (fold, what `job.commit` returned) as each finishes.

    There are as many slots as folds if the cluster has the CPUs, and fewer otherwise. While no fold runs, `on_wait`
    gets the reason after 3 s and then every 10 s. Once `cancelled` returns True, all folds end and CancelledError is
    raised: another thread cannot close a generator. A fold whose worker dies is resumed by another from its last
    checkpoint; the result is the same to the byte. If the queue itself dies, as Ray's memory monitor may kill it, the
    folds that are not finished begin again.

    Raises InputError if a fold raises it, and FoldError(engine, fold, cause) for any other failure. Then, and when the
    caller closes the generator, all folds end, and their processes and placement groups are gone.
    """
    # A slot that took the last CPU before the data is read would wait for it without end.
    wait_for(job.data, "reading the features", on_wait, cancelled)
    engine = job.recipe.settings.engine
    unfinished = list(folds)
    queues = 0
    while unfinished:
        queues += 1
        pool = _FoldPool(job, unfinished[:], on_wait, cancelled)
        try:
            with contextlib.closing(pool.results()) as results:
                for fold, committed in results:
                    unfinished.remove(fold)
                    yield fold, committed
        except QueueLostError as error:
            if queues > FOLD_DEATHS_ALLOWED:
                raise FoldError(engine, unfinished[0], str(error)) from error
            pause = PAUSE_SECONDS * queues**2
            on_wait(f"{engine}: the fold queue was lost; {len(unfinished)} folds begin again in {pause:.0f} s")
            _sleep(pause, cancelled)


def _sleep(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Sleep until the time is over or `cancelled` returns True."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not cancelled():
        time.sleep(0.1)


@dataclass
class _Slot:
    number: int  # of the worker
    group: PlacementGroup
    task: ray.ObjectRef[None] | None = None  # of its worker, once the group is placed
    worker: ActorHandle | None = None  # kept, since an actor without a handle ends
    nodes: set[str] = field(default_factory=set)  # on which it is placed

    def close(self) -> None:
        """End whatever runs in the slot and free its CPUs."""
        remove_placement_group(self.group)


class _FoldPool:
    """The slots that work on one queue."""

    def __init__(
        self,
        job: FoldJob[Any],
        folds: Sequence[int],
        on_wait: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self._job, self._folds = job, folds
        self._on_wait, self._cancelled = on_wait, cancelled
        # Checkpoints outlive every slot, so the queue's actor stays on the caller's node.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = ray.remote(FoldQueue).options(num_cpus=0, scheduling_strategy=here).remote(list(folds))
        self._slots: list[_Slot] = []
        self._opened = 0  # slots so far
        self._unfinished = self._waiting = len(folds)
        self._working: set[int] = set()  # numbers of the workers that have claimed a fold
        self._next_report = time.monotonic() + QUIET_SECONDS

    def results(self) -> Generator[tuple[int, Any]]:
        """Train the folds; yield as `train_folds`. Raises QueueLostError if the queue's process dies."""
        try:
            while self._unfinished:
                if self._cancelled():
                    raise CancelledError
                readable = bool(ray.wait([self._job.data], timeout=0, fetch_local=False)[0])
                if readable:
                    self._request_slots()
                else:
                    self._close_idle_slots()
                self._start_workers()
                self._report_wait(readable)
                time.sleep(LOOK_SECONDS)
                self._close_ended_slots()
                yield from self._poll()
                self._cancel_requests()
        finally:
            for slot in self._slots:
                slot.close()
            ray.kill(self._queue)

    def _request_slots(self) -> None:
        """Request a slot for each waiting fold: fewer requests would hide demand from an autoscaler."""
        settings = self._job.recipe.settings
        while sum(slot.number not in self._working for slot in self._slots) < self._waiting:
            self._slots.append(_Slot(self._opened, request_group(settings.cpus_per_worker, settings.num_workers)))
            self._opened += 1

    def _close_idle_slots(self) -> None:
        """Free the CPUs of slots without a fold: the data was lost with its node, and reading it again takes a CPU.

        A worker that has a fold has the data.
        """
        for slot in [slot for slot in self._slots if slot.number not in self._working]:
            self._close(slot)
            queue_reply(self._queue.requeue.remote(slot.number, True))  # it may have claimed a fold since the last poll

    def _start_workers(self) -> None:
        """Start a worker in each slot that has got its CPUs."""
        for slot in self._slots:
            if slot.task is None and is_placed(slot.group):
                slot.nodes = nodes_of(slot.group)
                strategy = PlacementGroupSchedulingStrategy(slot.group, placement_group_capture_child_tasks=True)
                slot.worker = ray.remote(FoldWorker).options(num_cpus=0, scheduling_strategy=strategy).remote()
                slot.task = slot.worker.run.remote(self._job, slot.number, self._queue)

    def _report_wait(self, readable: bool) -> None:
        """Report why no worker runs, at most every REPORT_SECONDS."""
        if any(slot.task is not None for slot in self._slots):
            self._next_report = time.monotonic() + QUIET_SECONDS
        elif time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + REPORT_SECONDS
            settings = self._job.recipe.settings
            reason = "the features were lost with a node and are read again"
            if readable:
                reason = describe_shortage("each fold", settings.cpus_per_worker, settings.num_workers)
            self._on_wait(f"{settings.engine}: {self._unfinished} folds wait: {reason}")

    def _close_ended_slots(self) -> None:
        """Free the slots whose workers ended, and requeue the folds of those that died."""
        running = {slot.task: slot for slot in self._slots if slot.task is not None}
        ended, _ = ray.wait(list(running), num_returns=len(running), timeout=0) if running else ([], [])
        for task in ended:
            slot = running[task]
            self._close(slot)  # a dead process may have left others behind, which end with the slot
            death = _cause_of_death(task)
            if death is not None:
                lost_node = slot.nodes != alive(slot.nodes)
                fold, deaths = queue_reply(self._queue.requeue.remote(slot.number, lost_node))
                if deaths > FOLD_DEATHS_ALLOWED:
                    raise FoldError(self._job.recipe.settings.engine, self._folds[0] if fold is None else fold, death)

    def _poll(self) -> Iterator[tuple[int, Any]]:
        """Yield the folds that have finished since the last poll. Raises the error of one that failed."""
        events, self._waiting, self._working = queue_reply(self._queue.poll.remote())
        for event in events:
            if isinstance(event, Failed):
                if isinstance(event.error, InputError):
                    raise event.error
                raise FoldError(self._job.recipe.settings.engine, event.fold, str(event.error))
            self._unfinished -= 1
            yield event.fold, event.committed

    def _cancel_requests(self) -> None:
        """Cancel the requests for slots that are no longer needed."""
        starting = sum(slot.task is not None and slot.number not in self._working for slot in self._slots)
        for slot in [slot for slot in self._slots if slot.task is None][max(self._waiting - starting, 0) :]:
            self._close(slot)

    def _close(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        slot.close()


def _cause_of_death(task: ray.ObjectRef[None]) -> str | None:
    """Return why a slot's worker died, or None if it ended well. Raises whatever else ended it."""
    try:
        ray.get(task)
    except (RayActorError, RayTaskError, OutOfMemoryError) as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, WorkerDiedError | RayActorError | OutOfMemoryError):
            return f"{type(cause).__name__}: {str(cause).splitlines()[0]}"
        raise cause from error
    return None
