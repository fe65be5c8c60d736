"""XGBoost through xgboost_ray; wrapper_calls.py imports it beside this module, since lightgbm_ray is built on it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import InputError
from train.boosters.data import (
    TRIAL_ROWS,
    BoosterData,
    BoosterSettings,
    Doubles,
    Fit,
    Probabilities,
    Sample,
    mean_absolute,
    refuse_reserved,
)
from train.boosters.ray_compat import raise_cause, without_helpers
from train.boosters.ray_dmatrix import fold_matrix

if TYPE_CHECKING:
    import ray
    import xgboost

    from train.boosters.matrix import Matrix

_RESERVED = {
    **dict.fromkeys(("nthread", "n_jobs"), "set the CPUs per fold"),
    **dict.fromkeys(("seed", "random_state", "seed_per_iteration"), "set the seed"),
    **dict.fromkeys(("num_boost_round", "n_estimators", "num_round"), "set the rounds"),
    **dict.fromkeys(("early_stopping_rounds",), "set the early stopping rounds"),
    **dict.fromkeys(("objective", "num_class", "eval_metric", "verbosity"), "leave it out"),
}
_STATE = "tiebreak_early_stopping"


def native_params(settings: BoosterSettings, first_round: int = 0) -> dict[str, Any]:
    """The parameters that `xgboost.train` gets for the rounds from `first_round` up to the next checkpoint.

    XGBoost keeps random state that no model file holds, so each stretch between checkpoints has a seed of its own; the
    first has the given one.
    """
    refuse_reserved("xgboost", settings.params, _RESERVED)
    return {
        "tree_method": "hist",
        **settings.params,
        "objective": "multi:softprob",
        "num_class": 3,
        "eval_metric": "mlogloss",
        "nthread": settings.cpus_per_fold,
        "seed": settings.seed + first_round,
        "verbosity": 1,
    }


_MAIN_NAMES = {
    "learning_rate": "eta",
    "min_split_loss": "gamma",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
}


def main_name(name: str) -> str:
    """See train.boosters.data.Engine.main_name."""
    return _MAIN_NAMES.get(name, name)


def fixed_by_data(name: str) -> bool:
    """See train.boosters.data.Engine.fixed_by_data. XGBoost bins again when asked for other bins."""
    return False


def check(data: BoosterData, settings: BoosterSettings) -> None:
    """See train.boosters.data.Engine.check."""
    import xgboost

    kind = settings.params.get("booster", "gbtree")
    if kind == "gblinear" or (kind == "dart" and settings.early_stopping_rounds is not None):
        raise InputError(
            "a fold's model is cut to its best round, which is not possible with this booster",
            where="xgboost params.booster",
            fix="leave it out" + ("" if kind == "gblinear" else ", or set early_stopping_rounds: null"),
        )
    said = io.StringIO()
    sample = data.sample(np.arange(min(TRIAL_ROWS, len(data.labels))), both_orders=False)
    try:
        # XGBoost only prints that it does not know a parameter.
        with contextlib.redirect_stdout(said), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            xgboost.train({**native_params(settings), "validate_parameters": True}, _matrix(sample, settings), 1)
    except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
        reason = str(error).partition("Stack trace")[0].strip()
        raise InputError(reason, where="xgboost params", fix="see XGBoost's list of parameters") from None
    unknown = re.search(r"Parameters: (\{.*?\})", said.getvalue() + "".join(str(each.message) for each in warned))
    if unknown:
        raise InputError(f"XGBoost does not know {unknown[1]}", where="xgboost params", fix="check the spelling")


def host(body: Callable[[], None], settings: BoosterSettings) -> None:
    """See train.boosters.data.Engine.host. Call it in a process whose placement group holds the CPUs: the wrapper then
    starts its actor there, rather than in a group of its own that it gives up waiting for after 100 s.

    xgboost_ray calls a callback's `before_training` in its actor; this one's is `body`, which trains fold after fold,
    before the wrapper boosts its own single round on three rows. One call of the wrapper for every fold would
    start processes for each.
    """
    import xgboost_ray
    from xgboost.callback import TrainingCallback

    class Host(TrainingCallback):  # type: ignore[misc]
        def before_training(self, model: xgboost.Booster) -> xgboost.Booster:
            body()
            return model

    rows = xgboost_ray.RayDMatrix(np.zeros((3, 1), np.float32), np.arange(3, dtype=np.float32))
    params = {"objective": "multi:softprob", "num_class": 3, "nthread": settings.cpus_per_fold}
    with without_helpers():
        _train_with_wrapper(params, rows, 1, [], Host(), None, dataclasses.replace(settings, actors_per_fold=1))


def _train_with_wrapper(
    params: dict[str, Any],
    train: Any,  # noqa: ANN401 - a RayDMatrix
    rounds: int,
    evals: list[Any],
    callback: xgboost.callback.TrainingCallback,
    start_from: bytes | None,
    settings: BoosterSettings,
) -> xgboost.Booster:
    """One call of xgboost_ray. Raises WorkerDiedError if a training process died."""
    import xgboost_ray

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`num_actors` in `ray_params` is smaller than 2")
        try:
            return xgboost_ray.train(
                params,
                train,
                num_boost_round=rounds,
                evals=evals,
                callbacks=[callback],
                xgb_model=start_from,
                verbose_eval=False,
                ray_params=xgboost_ray.RayParams(
                    num_actors=settings.actors_per_fold,
                    cpus_per_actor=settings.cpus_per_fold,
                    gpus_per_actor=0,
                    max_actor_restarts=0,  # restarts are ours: the wrapper's know nothing of folds and seeds
                    checkpoint_frequency=rounds + 1,  # so are checkpoints
                    verbose=False,
                ),
            )
        except RuntimeError as error:
            raise_cause(error, settings.actors_per_fold)


@dataclass
class _Prepared:
    data: BoosterData
    settings: BoosterSettings
    kept: dict[int, tuple[xgboost.DMatrix, xgboost.DMatrix]] | None

    def of_fold(self, fold: int) -> tuple[xgboost.DMatrix, xgboost.DMatrix]:
        """What a fold trains on, and what is held out."""
        if self.kept is not None and fold in self.kept:
            return self.kept[fold]
        both = self.settings.both_orders
        train, valid = (self.data.sample(rows, both) for rows in (self.data.rest(fold), self.data.held_out(fold)))
        pair = _matrix(train, self.settings), _matrix(valid, self.settings)
        if self.kept is not None:
            self.kept[fold] = pair
        return pair


def prepare(data: BoosterData, settings: BoosterSettings, keep_folds: bool = False) -> _Prepared:
    """See train.boosters.data.Engine.prepare. XGBoost's binned matrices know no subsets, so each fold bins its own."""
    return _Prepared(data, settings, {} if keep_folds else None)


def start(prepared: _Prepared, fold: int, settings: BoosterSettings, checkpoint: bytes | None) -> XgboostTrainer:
    """See train.boosters.data.Engine.start."""
    train, valid = prepared.of_fold(fold)

    def boost(params: dict[str, Any], rounds: int, state: Stopping, model: bytes | None) -> xgboost.Booster:
        import xgboost

        return xgboost.train(
            params,
            train,
            num_boost_round=rounds,
            evals=[(valid, "valid")],
            callbacks=[_stopping(state)],
            xgb_model=None if model is None else bytearray(model),
            verbose_eval=False,
        )

    return XgboostTrainer(boost, settings, checkpoint)


def start_distributed(
    shared: list[ray.ObjectRef[BoosterData]],
    data: BoosterData,
    fold: int,
    settings: BoosterSettings,
    checkpoint: bytes | None,
) -> XgboostTrainer:
    """See train.boosters.data.Engine.start_distributed. Every stretch between checkpoints is a call of xgboost_ray."""
    import xgboost_ray

    train, valid = (
        fold_matrix(xgboost_ray.RayDMatrix, shared, rows, settings.both_orders)
        for rows in (data.rest(fold), data.held_out(fold))
    )

    def boost(params: dict[str, Any], rounds: int, state: Stopping, model: bytes | None) -> xgboost.Booster:
        evals = [(valid, "valid")]
        return _train_with_wrapper(params, train, rounds, evals, _stopping(state), model, settings)

    return XgboostTrainer(boost, settings, checkpoint)


@dataclass
class Stopping:
    """What early stopping knows. It travels in the booster's attributes, also from other processes."""

    patience: int | None
    best_score: float = float("inf")
    best_iteration: int = 0

    def look(self, done: int, score: float) -> bool:
        """Note a round's held-out log loss; whether to stop."""
        if self.patience is None or score < self.best_score:
            self.best_score, self.best_iteration = score, done
        return self.patience is not None and done - self.best_iteration >= self.patience


Boost = Callable[[dict[str, Any], int, Stopping, bytes | None], "xgboost.Booster"]


class XgboostTrainer:
    """See train.boosters.data.Trainer. A checkpoint is the model as UBJ with the state of early stopping inside."""

    def __init__(self, boost: Boost, settings: BoosterSettings, checkpoint: bytes | None) -> None:
        self._boost, self._settings = boost, settings
        self._saved = checkpoint
        self._booster = None if checkpoint is None else _load(checkpoint)
        self._state = Stopping(settings.early_stopping_rounds)
        if self._booster is not None:
            self._read_state(self._booster)
        self.done = self._resumed_at = 0 if self._booster is None else int(self._booster.num_boosted_rounds())
        self.finished = False

    def _read_state(self, booster: xgboost.Booster) -> None:
        self._state = Stopping(self._settings.early_stopping_rounds, **json.loads(booster.attr(_STATE)))

    @property
    def best_score(self) -> float:
        """See train.boosters.data.Trainer."""
        return self._state.best_score

    def advance(self) -> None:
        """See train.boosters.data.Trainer."""
        target = min(self._settings.rounds, self.done + self._settings.checkpoint_every)
        params = native_params(self._settings, self.done)
        self._booster = self._boost(params, target - self.done, self._state, self._saved)
        self._read_state(self._booster)
        self.done = self._booster.num_boosted_rounds()
        stopped = self._state.patience is not None and self.done - self._state.best_iteration >= self._state.patience
        self.finished = stopped or self.done < target or self.done == self._settings.rounds
        if not self.finished:
            self._saved = bytes(self._booster.save_raw("ubj"))

    def checkpoint(self) -> bytes:
        """See train.boosters.data.Trainer."""
        assert self._saved is not None
        return self._saved

    def fit(self) -> Fit:
        """See train.boosters.data.Trainer."""
        assert self._booster is not None
        best = self._state.best_iteration
        kept = self._booster[:best]
        kept.set_attr(**{_STATE: None})
        return Fit(bytes(kept.save_raw("ubj")), best, self.done, self._resumed_at)


def predict(model: bytes, features: Matrix, threads: int) -> Probabilities:
    """Probabilities (n, 3) of UBJ `model`."""
    import xgboost

    booster = _load(model)
    booster.set_param({"nthread": threads})
    probabilities = booster.predict(xgboost.DMatrix(features.joined(), nthread=threads)).astype(np.float64)
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))  # float32 sums to 1 only to 1e-7


def importance(model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
    """See train.boosters.data.Engine.importance; TreeSHAP is XGBoost's own."""
    import xgboost

    booster = _load(model)
    booster.set_param({"nthread": threads})
    gain = np.zeros(features.width)
    for name, value in booster.get_score(importance_type="total_gain").items():
        gain[int(name[1:])] = value  # columns are called f0, f1, ...
    contributions = booster.predict(xgboost.DMatrix(features.joined(), nthread=threads), pred_contribs=True)
    return gain, mean_absolute(np.asarray(contributions, np.float64))


def _matrix(sample: Sample, settings: BoosterSettings) -> xgboost.DMatrix:
    import xgboost

    features, labels, weights = sample
    return xgboost.DMatrix(features.joined(), labels, weight=weights, nthread=settings.cpus_per_fold)


def _load(model: bytes) -> xgboost.Booster:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    return booster


def _stopping(state: Stopping) -> xgboost.callback.TrainingCallback:
    """Stops training when `state` says so, and leaves it in the booster's attributes."""
    from xgboost.callback import TrainingCallback

    class Stop(TrainingCallback):  # type: ignore[misc]
        def after_iteration(
            self, model: xgboost.Booster, epoch: int, evals_log: dict[str, dict[str, list[float]]]
        ) -> bool:
            return state.look(model.num_boosted_rounds(), evals_log["valid"]["mlogloss"][-1])

        def after_training(self, model: xgboost.Booster) -> xgboost.Booster:
            known = {"best_score": state.best_score, "best_iteration": state.best_iteration}
            model.set_attr(**{_STATE: json.dumps(known)})
            return model

    return Stop()
