"""Patch calls of xgboost_ray, and of lightgbm_ray, which uses it."""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

from ray.exceptions import OutOfMemoryError, RayActorError

from core.placement import root_cause
from train.boosters.engine import WorkerDiedError


def reraise_cause(error: RuntimeError, processes: int) -> NoReturn:
    """Raise the cause of a backend's error: WorkerDiedError if a training process died.

    With several processes the backend reports the first in order, which may be a victim. So any failure then counts as
    a worker's death, of which a fold survives a few; see train.boosters.fold_pool.
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
def without_helper_actors() -> Iterator[None]:
    """Keep a call with one training process from starting other actors.

    The backends start two more processes for each call. One has the event that stops training processes when another
    has died. The other has the queue of checkpoints. A single process needs no such event, and its checkpoints go to
    the fold queue. So the event becomes local, and the queue ignores its input.
    """
    import xgboost_ray.main

    module = xgboost_ray.main
    originals = module.Queue, module.Event
    module.Queue, module.Event = _NullQueue, _LocalEvent
    try:
        yield
    finally:
        module.Queue, module.Event = originals


class _NullQueue:
    """Replaces xgboost_ray.main.Queue."""

    def __init__(self, actor_options: object = None) -> None:
        pass

    def put(self, item: object) -> None:
        """Drop a checkpoint. xgboost_ray always sends one after the first round and one after the last."""

    def empty(self) -> bool:
        return True

    def shutdown(self) -> None:
        pass


class _LocalEvent:
    """Replaces xgboost_ray.main.Event; a copy of it goes to the training process."""

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
