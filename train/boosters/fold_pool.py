"""Train boosters' folds on Ray: as many at a time as fit, each resumable, all cancelled when one fails.

A *slot* is a placement group with the CPUs of one fold. In it a FoldWorker calls the engine's backend (lightgbm_ray or
xgboost_ray) once. The backend's training process claims fold after fold until the queue is empty, so each slot starts
its processes once. The backends detect the placement group and create no other, so they never wait for one. Removing
the group ends all processes of the slot. With num_workers > 1 a slot has one bundle for each process. The FoldWorker
claims the folds, and the backend distributes each fold over the processes.
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
    FIRST_REPORT_SECONDS,
    POLL_SECONDS,
    REPORT_SECONDS,
    alive_nodes,
    describe_shortage,
    group_nodes,
    is_placed,
    request_placement_group,
    wait_for_task,
)
from train.boosters.data import FoldError
from train.boosters.engine import WorkerDiedError
from train.boosters.fold_queue import FoldFailed, FoldQueue, QueueLostError, wait_for_reply
from train.boosters.fold_worker import Committed, FoldJob, FoldWorker

if TYPE_CHECKING:
    from ray.actor import ActorHandle

# Of one fold's workers without a new checkpoint. A fold that keeps killing them needs more memory, not more tries.
FOLD_DEATHS_ALLOWED = 3
RESTART_PAUSE_SECONDS = 4.0  # before a second queue; then 4 and 9 times as long, until memory is free again


def train_folds(
    job: FoldJob[Committed],
    folds: Sequence[int],
    on_wait: Callable[[str], None] = lambda reason: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Committed]]:
    """Train `folds` and yield (fold, what `job.commit` returned) as each finishes.

    There are as many slots as folds if the cluster has the CPUs, and fewer otherwise. While no fold runs, `on_wait`
    gets the reason after 3 s and then every 10 s. Once `cancelled` returns True, all folds end and CancelledError is
    raised: another thread cannot close a generator. If a fold's worker dies, another worker resumes from the last
    checkpoint, with the same result to the byte. If the queue itself dies (Ray's memory monitor may kill it),
    unfinished folds restart.

    Raises InputError if a fold raises it, and FoldError(engine, fold, cause) for any other failure. Then, and when the
    caller closes the generator, all folds end, and their processes and placement groups are gone.
    """
    # A slot that took the last CPU before the data is read would wait for the data forever.
    wait_for_task(job.data, "reading the features", on_wait, cancelled)
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
            pause = RESTART_PAUSE_SECONDS * queues**2
            on_wait(f"{engine}: the fold queue was lost; {len(unfinished)} folds restart in {pause:.0f} s")
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
        self._next_report = time.monotonic() + FIRST_REPORT_SECONDS

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
                time.sleep(POLL_SECONDS)
                self._close_ended_slots()
                yield from self._poll()
                self._cancel_requests()
        finally:
            for slot in self._slots:
                slot.close()
            ray.kill(self._queue)

    def _request_slots(self) -> None:
        """Request a slot for each waiting fold, so that an autoscaler sees the demand."""
        settings = self._job.recipe.settings
        while sum(slot.number not in self._working for slot in self._slots) < self._waiting:
            self._slots.append(
                _Slot(self._opened, request_placement_group(settings.cpus_per_worker, settings.num_workers))
            )
            self._opened += 1

    def _close_idle_slots(self) -> None:
        """Free the CPUs of slots without a fold. The data was lost with its node, and reading it takes a CPU. A worker
        with a fold has the data.
        """
        for slot in [slot for slot in self._slots if slot.number not in self._working]:
            self._close(slot)
            wait_for_reply(
                self._queue.requeue.remote(slot.number, True)
            )  # it may have claimed a fold since the last poll

    def _start_workers(self) -> None:
        """Start a worker in each slot that has got its CPUs."""
        for slot in self._slots:
            if slot.task is None and is_placed(slot.group):
                slot.nodes = group_nodes(slot.group)
                strategy = PlacementGroupSchedulingStrategy(slot.group, placement_group_capture_child_tasks=True)
                slot.worker = ray.remote(FoldWorker).options(num_cpus=0, scheduling_strategy=strategy).remote()
                slot.task = slot.worker.run.remote(self._job, slot.number, self._queue)

    def _report_wait(self, readable: bool) -> None:
        """Report why no worker runs, at most every REPORT_SECONDS."""
        if any(slot.task is not None for slot in self._slots):
            self._next_report = time.monotonic() + FIRST_REPORT_SECONDS
        elif time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + REPORT_SECONDS
            settings = self._job.recipe.settings
            reason = "the features were lost with a node; reading them again"
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
                lost_node = slot.nodes != alive_nodes(slot.nodes)
                fold, deaths = wait_for_reply(self._queue.requeue.remote(slot.number, lost_node))
                if deaths > FOLD_DEATHS_ALLOWED:
                    raise FoldError(self._job.recipe.settings.engine, self._folds[0] if fold is None else fold, death)

    def _poll(self) -> Iterator[tuple[int, Any]]:
        """Yield the folds that have finished since the last poll. Raises the error of one that failed."""
        events, self._waiting, self._working = wait_for_reply(self._queue.poll.remote())
        for event in events:
            if isinstance(event, FoldFailed):
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
