"""XGBoost through xgboost_ray; the only module that imports it."""

import contextlib
import io
import json
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from preference.errors import InputError
from train.booster import (
    TRIAL_ROWS,
    BoosterSettings,
    Features,
    Fit,
    Labels,
    Probabilities,
    WorkerDiedError,
    refuse_reserved,
)
from train.cluster import is_death, root_cause

if TYPE_CHECKING:
    import xgboost

_RESERVED = {
    **dict.fromkeys(("nthread", "n_jobs"), "set the CPUs per fold"),
    **dict.fromkeys(("seed", "random_state", "seed_per_iteration"), "set the seed"),
    **dict.fromkeys(("num_boost_round", "n_estimators", "num_round"), "set the rounds"),
    **dict.fromkeys(("early_stopping_rounds",), "set the early stopping rounds"),
    **dict.fromkeys(("objective", "num_class", "eval_metric", "verbosity"), "leave it out"),
}
_STATE = "tiebreak_early_stopping"


def native_params(settings: BoosterSettings) -> dict[str, Any]:
    """The parameters that `xgboost.train` gets for the same model."""
    refuse_reserved("xgboost", settings.params, _RESERVED)
    return {
        "tree_method": "hist",
        **settings.params,
        "objective": "multi:softprob",
        "num_class": 3,
        "eval_metric": "mlogloss",
        "nthread": settings.cpus_per_fold,
        "seed": settings.seed,
        "seed_per_iteration": True,
        "verbosity": 1,
    }


def fit(
    train: tuple[Features, Labels],
    valid: tuple[Features, Labels],
    settings: BoosterSettings,
    checkpoint: bytes | None,
    save: Callable[[bytes], None],
) -> Fit:
    """See train.booster.Engine.fit. No checkpoint is taken or read: a fold whose process dies begins again.

    A model that samples rows or columns does not go on from a saved one as it would have gone on by itself, since no
    model file holds XGBoost's random state; what counts is that the result is the same.

    Call it in a process whose placement group holds the CPUs: the wrapper then starts its actors there, rather than
    in a group of its own that it gives up waiting for after 100 s.
    """
    import xgboost
    import xgboost_ray

    params = native_params(settings)
    _try_params(params, train)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`num_actors` in `ray_params` is smaller than 2")
        try:
            booster = xgboost_ray.train(
                params,
                xgboost_ray.RayDMatrix(train[0], train[1].astype(np.float32)),
                num_boost_round=settings.rounds,
                evals=[(xgboost_ray.RayDMatrix(valid[0], valid[1].astype(np.float32)), "valid")],
                callbacks=[_fold_callback(settings)],
                verbose_eval=False,
                # Restarts are ours: the wrapper's begin early stopping anew and draw other random numbers.
                ray_params=xgboost_ray.RayParams(
                    num_actors=1,
                    cpus_per_actor=settings.cpus_per_fold,
                    gpus_per_actor=0,
                    max_actor_restarts=0,
                    checkpoint_frequency=settings.rounds + 1,
                    verbose=False,
                ),
            )
        except RuntimeError as error:
            cause = root_cause(error)
            if is_death(cause):
                raise WorkerDiedError(str(cause)) from error
            raise cause from None
    state = json.loads(booster.attr(_STATE))
    trained = booster.num_boosted_rounds()
    kept: xgboost.Booster = booster[: state["best_iteration"]]
    kept.set_attr(**{_STATE: None})
    return Fit(bytes(kept.save_raw("ubj")), state["best_iteration"], trained, 0)


def predict(model: bytes, features: Features, threads: int) -> Probabilities:
    """Probabilities (n, 3) of UBJ `model` for features (n, d)."""
    import xgboost

    booster = _load(model)
    booster.set_param({"nthread": threads})
    probabilities = booster.predict(xgboost.DMatrix(features, nthread=threads)).astype(np.float64)
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))  # float32 sums to 1 only to 1e-7


def _try_params(params: dict[str, Any], train: tuple[Features, Labels]) -> None:
    """Raise InputError if XGBoost refuses the parameters, on a few rows and before any process starts.

    The wrapper would lose the reason, and take 5 s to give up its tracker.
    """
    import xgboost

    said = io.StringIO()
    try:
        # XGBoost only prints that it does not know a parameter.
        with contextlib.redirect_stdout(said), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            matrix = xgboost.DMatrix(train[0][:TRIAL_ROWS], train[1][:TRIAL_ROWS], nthread=1)
            xgboost.train({**params, "validate_parameters": True}, matrix, 1)
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        reason = str(error).partition("Stack trace")[0].strip()
        raise InputError(reason, where="xgboost params", fix="see XGBoost's list of parameters") from None
    unknown = re.search(r"Parameters: (\{.*?\})", said.getvalue() + "".join(str(each.message) for each in warned))
    if unknown:
        raise InputError(f"XGBoost does not know {unknown[1]}", where="xgboost params", fix="check the spelling")


def _load(model: bytes) -> "xgboost.Booster":
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    return booster


def _fold_callback(settings: BoosterSettings) -> "xgboost.callback.TrainingCallback":
    """Early stopping; what it found travels in the booster's attributes."""
    from xgboost.callback import TrainingCallback

    class FoldCallback(TrainingCallback):  # type: ignore[misc]
        def before_training(self, model: "xgboost.Booster") -> "xgboost.Booster":
            saved = model.attr(_STATE)
            state = json.loads(saved) if saved else {"best_score": float("inf"), "best_iteration": 0}
            self.best_score, self.best_iteration = state["best_score"], state["best_iteration"]
            return model

        def after_iteration(
            self, model: "xgboost.Booster", epoch: int, evals_log: "dict[str, dict[str, list[float]]]"
        ) -> bool:
            # Wrapper and library count rounds on from a checkpoint's, so a resumed run sees the same numbers.
            done = model.num_boosted_rounds()
            score = evals_log["valid"]["mlogloss"][-1]
            if settings.early_stopping_rounds is None or score < self.best_score:
                self.best_score, self.best_iteration = score, done
            patience = settings.early_stopping_rounds
            return patience is not None and done - self.best_iteration >= patience

        def after_training(self, model: "xgboost.Booster") -> "xgboost.Booster":
            self._write_state(model)
            return model

        def _write_state(self, model: "xgboost.Booster") -> None:
            state = {"best_score": self.best_score, "best_iteration": self.best_iteration}
            model.set_attr(**{_STATE: json.dumps(state)})

    return FoldCallback()
