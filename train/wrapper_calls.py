"""What both wrappers' calls share; lightgbm_ray is built on xgboost_ray."""

import threading
from typing import Any

from ray import cloudpickle

__all__ = ["local_stop"]


def local_stop() -> Any:  # noqa: ANN401 - a DistributedCallback of xgboost_ray's
    """A callback that gives each training process a stop event of its own. Call it before each call of a wrapper.

    The wrapper's own event is an actor that is asked ten times a second or each round; our processes end with their
    slot. The actor is started all the same, and as a class of xgboost_ray.util it would import all of xgboost_ray, with
    Ray Data, pandas and scikit-learn, while the training process wants the CPUs to start: as a value it imports none.
    """
    import xgboost_ray.util
    from xgboost_ray.callback import DistributedCallback

    cloudpickle.register_pickle_by_value(xgboost_ray.util)

    class LocalStop(DistributedCallback):  # type: ignore[misc]
        def before_train(self, actor: Any, *_: object, **__: object) -> None:  # noqa: ANN401 - the wrapper's
            actor.set_stop_event(threading.Event())

    return LocalStop()
