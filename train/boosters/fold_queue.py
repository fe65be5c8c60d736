"""Queue folds for workers, with their checkpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple


class FoldFinished(NamedTuple):
    """A fold is done; `committed` is what its commit returned."""

    fold: int
    committed: Any


class FoldFailed(NamedTuple):
    """A fold failed. The message starts with the kind of error, unless `error` is an InputError to raise as it is."""

    fold: int
    error: Exception


FoldEvent = FoldFinished | FoldFailed


class QueueLostError(Exception):
    """The queue's process is gone, with the claims and the checkpoints of the folds."""


class FoldQueue:
    """Waiting folds, the worker of each claimed fold, and each fold's last checkpoint. Lives in an actor."""

    def __init__(self, folds: Sequence[int]) -> None:
        self._waiting = deque(folds)
        self._claims: dict[int, int] = {}  # fold by worker
        self._working: set[int] = set()  # workers that have ever claimed a fold
        self._dead: set[int] = set()
        self._deaths: dict[int | None, int] = {}  # by fold since its last checkpoint; None: of workers without a fold
        self._checkpoints: dict[int, bytes] = {}
        self._events: list[FoldEvent] = []

    def claim(self, worker: int) -> tuple[int, bytes | None] | None:
        """Return the next fold, with its checkpoint if a worker died over it; None if no fold waits."""
        if not self._waiting or worker in self._dead:  # a dead worker must not claim: nobody would requeue its fold
            return None
        self._working.add(worker)
        fold = self._claims[worker] = self._waiting.popleft()
        return fold, self._checkpoints.get(fold)

    def save(self, fold: int, checkpoint: bytes) -> None:
        """Keep a fold's latest checkpoint."""
        self._checkpoints[fold] = checkpoint
        self._deaths.pop(fold, None)

    def complete(self, worker: int, event: FoldEvent) -> None:
        """Note that a worker finished its fold or failed with it."""
        if self._claims.pop(worker, None) is None:
            return  # the worker was declared dead, and its fold waits again
        self._checkpoints.pop(event.fold, None)
        self._deaths.pop(None, None)  # workers can start
        self._events.append(event)

    def requeue(self, worker: int, with_node: bool) -> tuple[int | None, int]:
        """Requeue the fold of a dead worker at the front. Return the fold (or None) and its number of deaths.

        A lost node takes all its workers with it. That does not count as a death for workers without a fold.
        """
        self._dead.add(worker)
        fold = self._claims.pop(worker, None)
        if fold is not None:
            self._waiting.appendleft(fold)
        elif with_node:
            return None, 0
        self._deaths[fold] = self._deaths.get(fold, 0) + 1
        return fold, self._deaths[fold]

    def poll(self) -> tuple[list[FoldEvent], int, set[int]]:
        """Return the events since the last poll, the number of waiting folds, and the workers that have begun."""
        events, self._events = self._events, []
        return events, len(self._waiting), self._working


def wait_for_reply(reference: Any) -> Any:  # noqa: ANN401 - a Ray object reference, and the queue method's result
    """Wait for a reply of the queue's actor. Raises QueueLostError if its process is gone."""
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError

    try:
        return ray.get(reference)
    except (RayActorError, OutOfMemoryError) as error:
        raise QueueLostError(str(error).splitlines()[0]) from error
