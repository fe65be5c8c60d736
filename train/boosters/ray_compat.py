"""What both wrappers' calls share; lightgbm_ray is built on xgboost_ray."""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

from ray.exceptions import OutOfMemoryError, RayActorError

from core.placement import root_cause
from train.boosters.data import WorkerDiedError

__all__ = ["raise_cause", "without_helpers"]


def raise_cause(error: RuntimeError, processes: int) -> NoReturn:
    """Raise what is behind a wrapper's error: WorkerDiedError if a training process died.

    Of several processes the wrappers tell of the first in order: it may be one that lost another and thus failed. Any
    failure among several is taken for a death, then; a fold does not outlive many.
    """
    from xgboost_ray.main import RayXGBoostTrainingError, RayXGBoostTrainingStopped

    cause = root_cause(error)
    deaths: tuple[type[BaseException], ...] = (RayActorError, OutOfMemoryError)
    if processes > 1:
        deaths += (RayXGBoostTrainingError, RayXGBoostTrainingStopped)
    if isinstance(cause, deaths):
        raise WorkerDiedError(str(cause)) from error
    raise cause from None


@contextlib.contextmanager
def without_helpers() -> Iterator[None]:
    """Within it, a call of a wrapper with one training process starts no other actor.

    The wrappers would start two more processes for each call: one with the event that tells training processes to stop
    when another has died, and one with the queue through which they send checkpoints.
    A process alone needs no such event, and our checkpoints go to the board: here the event is the process's own, and
    the queue takes nothing.
    """
    import xgboost_ray.main

    module = xgboost_ray.main
    kept = module.Queue, module.Event
    module.Queue, module.Event = _Nowhere, _OwnEvent
    try:
        yield
    finally:
        module.Queue, module.Event = kept


class _Nowhere:
    """In place of xgboost_ray.main.Queue."""

    def __init__(self, actor_options: object = None) -> None:
        pass

    def put(self, item: object) -> None:
        """A checkpoint, which xgboost_ray sends after the first round and after the last, unasked."""

    def empty(self) -> bool:
        return True

    def shutdown(self) -> None:
        pass


class _OwnEvent:
    """In place of xgboost_ray.main.Event; a copy of it goes to the training process."""

    def __init__(self, actor_options: object = None) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def shutdown(self) -> None:
        pass
