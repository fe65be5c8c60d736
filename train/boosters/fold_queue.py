"""The board from which training processes take folds, and where they leave what they finish."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple


class Finished(NamedTuple):
    """A fold is done; `committed` is what its commit returned."""

    fold: int
    committed: Any


class Failed(NamedTuple):
    """A fold failed; the message starts with the kind of error unless `error` is an InputError to raise as it is."""

    fold: int
    error: Exception


Event = Finished | Failed


class Board:
    """Folds to train, who works on which, and the last checkpoint of each. Lives in an actor beside the caller."""

    def __init__(self, folds: Sequence[int]) -> None:
        self._waiting = deque(folds)
        self._taken: dict[int, int] = {}  # fold by slot
        self._at_work: set[int] = set()  # slots that have ever taken a fold
        self._lost: set[int] = set()
        self._losses: dict[int | None, int] = {}  # by fold since its last checkpoint; of slots without one
        self._checkpoints: dict[int, bytes] = {}
        self._events: list[Event] = []

    def take(self, slot: int) -> tuple[int, bytes | None] | None:
        """The next fold for a slot, with its last checkpoint if a process died over it; None if there is none left."""
        if not self._waiting or slot in self._lost:  # a dying process gets nothing that nobody would take back
            return None
        self._at_work.add(slot)
        fold = self._taken[slot] = self._waiting.popleft()
        return fold, self._checkpoints.get(fold)

    def save(self, fold: int, checkpoint: bytes) -> None:
        """Keep a fold's latest checkpoint."""
        self._checkpoints[fold] = checkpoint
        self._losses.pop(fold, None)

    def post(self, slot: int, event: Event) -> None:
        """A slot is done with its fold."""
        if self._taken.pop(slot, None) is None:
            return  # the slot was given up for dead, and its fold waits for another
        self._checkpoints.pop(event.fold, None)
        self._losses.pop(None, None)  # slots can start
        self._events.append(event)

    def lost(self, slot: int, with_node: bool) -> tuple[int | None, int]:
        """A slot's process died: its fold, which waits again before all others, or None if it had none; how often so.

        A lost node takes all its slots with it: that is nothing against those that had no fold yet.
        """
        self._lost.add(slot)
        fold = self._taken.pop(slot, None)
        if fold is not None:
            self._waiting.appendleft(fold)
        elif with_node:
            return None, 0
        self._losses[fold] = self._losses.get(fold, 0) + 1
        return fold, self._losses[fold]

    def look(self) -> tuple[list[Event], int, set[int]]:
        """What has happened since the last look, how many folds wait, and which slots have begun to work."""
        events, self._events = self._events, []
        return events, len(self._waiting), self._at_work
