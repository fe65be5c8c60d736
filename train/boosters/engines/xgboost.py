"""XGBoost through xgboost_ray. Besides, only train/boosters/ray_compat.py imports xgboost_ray."""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.errors import InputError
from core.registry import ENGINES
from core.settings.tune import Dimension, Space
from train.boosters.engine import (
    BoosterEngine,
    BoosterRecipe,
    EarlyStopping,
    FoldTrainer,
    TrainedModel,
    mean_absolute_shap,
)

if TYPE_CHECKING:
    import ray
    import xgboost

    from core.arrays import Doubles, Probabilities
    from core.settings.boosters import Booster
    from train.boosters.data import BoosterData, TrainingRows
    from train.boosters.matrix import Matrix

_RESERVED = {
    **dict.fromkeys(("nthread", "n_jobs"), "set cpus_per_worker"),
    **dict.fromkeys(("seed", "random_state", "seed_per_iteration"), "set the seed of the run"),
    **dict.fromkeys(("num_boost_round", "n_estimators", "num_round"), "set the rounds"),
    **dict.fromkeys(("early_stopping_rounds",), "set early_stopping_rounds"),
    **dict.fromkeys(("objective", "num_class", "eval_metric", "verbosity"), "leave it out"),
}
_MAIN_NAMES = {"learning_rate": "eta", "min_split_loss": "gamma", "reg_lambda": "lambda", "reg_alpha": "alpha"}
# XGBoost has no table of its parameters. tests/unit/train/test_engines.py compares these with the installed library.
_PARAMETERS = (
    *("alpha", "base_score", "boost_from_average", "booster", "cache_opt", "colsample_bylevel", "colsample_bynode"),
    *("colsample_bytree", "debug_synchronize", "device", "disable_default_eval_metric", "eta"),
    *("fail_on_invalid_gpu_id", "gamma", "gpu_id", "grow_policy", "interaction_constraints", "lambda", "max_bin"),
    *("max_cached_hist_node", "max_cat_threshold", "max_cat_to_onehot", "max_delta_step", "max_depth", "max_leaves"),
    *("min_child_weight", "monotone_constraints", "multi_strategy", "normalize_type", "num_parallel_tree"),
    *("one_drop", "process_type", "rate_drop", "refresh_leaf", "sample_type", "sampling_method", "sketch_ratio"),
    *("skip_drop", "sparse_threshold", "subsample", "tree_method", "updater", "validate_parameters"),
)
_STATE = "tiebreak_early_stopping"


@ENGINES.register
class XGBoostEngine(BoosterEngine):
    """Gradient boosted trees by XGBoost."""

    name = "xgboost"
    title = "XGBoost"
    summary = "Gradient boosted trees, grown level by level."
    model_file = "model.ubj"
    libraries = ("xgboost", "xgboost-ray")
    distributed = True
    reserved = _RESERVED
    search_spaces: ClassVar[Mapping[str, Space]] = {
        # The range reaches far towards plain models, which win while there are few votes.
        "default": {
            "eta": Dimension(low=0.01, high=0.1, log=True),
            "max_depth": Dimension(low=2, high=7, integer=True),
            "min_child_weight": Dimension(low=1.0, high=100.0, log=True),
            "subsample": Dimension(low=0.4, high=0.9),
            "colsample_bytree": Dimension(low=0.05, high=0.8, log=True),
            "gamma": Dimension(low=0.0, high=0.5),
            "alpha": Dimension(low=1e-3, high=10.0, log=True),
            "lambda": Dimension(low=0.1, high=100.0, log=True),
        },
        # The published notebook's RandomizedSearchCV over Word2Vec columns.
        "published": {
            "rounds": Dimension(low=200, high=280, integer=True),
            "max_depth": Dimension(low=5, high=9, integer=True),
            "eta": Dimension(low=0.015, high=0.05),
            "subsample": Dimension(low=0.5, high=0.7),
            "colsample_bytree": Dimension(low=0.65, high=0.8),
            "gamma": Dimension(low=0.0, high=0.3),
            "alpha": Dimension(low=0.0, high=1.0),
            "lambda": Dimension(low=2.0, high=3.5),
        },
    }

    def known_parameters(self) -> Collection[str]:
        """See BoosterEngine."""
        return (*_PARAMETERS, *_MAIN_NAMES, *_RESERVED)

    def main_name(self, name: str) -> str:
        """See BoosterEngine."""
        return _MAIN_NAMES.get(name, name)

    def check_settings(self, settings: Booster) -> None:
        """See BoosterEngine. Refuse the kinds of boosting whose models cannot be cut to their best round."""
        super().check_settings(settings)
        kind = settings.params.get("booster", "gbtree")
        if kind == "gblinear" or (kind == "dart" and settings.early_stopping_rounds is not None):
            raise InputError(
                "a fold's model is cut to its best round, which is not possible with this booster",
                settings.key("params.booster"),
                "leave it out" + ("." if kind == "gblinear" else ", or set early_stopping_rounds: null."),
            )

    def try_parameters(self, data: BoosterData, recipe: BoosterRecipe) -> None:
        """See BoosterEngine."""
        import xgboost

        super().try_parameters(data, recipe)
        where = recipe.settings.key("params")
        params = {**xgboost_params(recipe), "validate_parameters": True}
        sample = _matrix(data.trial_sample(), recipe.settings)
        output = io.StringIO()
        try:
            # XGBoost only prints that it does not know a parameter.
            with contextlib.redirect_stdout(output), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                xgboost.train(params, sample, 1)
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            reason = str(error).partition("Stack trace")[0].strip()
            raise InputError(reason, where, "see XGBoost's list of parameters.") from None
        messages = output.getvalue() + "".join(str(warning.message) for warning in caught)
        unused = re.search(r"Parameters: (\{.*?\})", messages)
        if unused:
            raise InputError(f"XGBoost does not use {unused[1]}", where, "leave it out.")

    def host(self, body: Callable[[], None], settings: Booster) -> None:
        """See BoosterEngine. Call it in a process whose placement group holds the CPUs.

        xgboost_ray then starts its actor there, instead of waiting up to 100 s for a group of its own. It calls a
        callback's `before_training` in its actor. Our callback runs `body`, which trains fold after fold. Then
        xgboost_ray boosts a single round on three rows. One call for each fold would start new processes each time.
        """
        import xgboost_ray
        from xgboost.callback import TrainingCallback

        from train.boosters.ray_compat import without_helper_actors

        class Host(TrainingCallback):  # type: ignore[misc]
            def before_training(self, model: xgboost.Booster) -> xgboost.Booster:
                body()
                return model

        rows = xgboost_ray.RayDMatrix(np.zeros((3, 1), np.float32), np.arange(3, dtype=np.float32))
        params = {"objective": "multi:softprob", "num_class": 3, "nthread": settings.cpus_per_worker}
        call = {"params": params, "dtrain": rows, "num_boost_round": 1, "callbacks": [Host()]}
        with without_helper_actors():
            _train_on_ray(call, settings.cpus_per_worker, 1)

    def prepare(self, data: BoosterData, recipe: BoosterRecipe, keep_folds: bool = False) -> _FoldMatrices:
        """See BoosterEngine. XGBoost's binned matrices have no subsets, so each fold bins its own."""
        return _FoldMatrices(data, recipe.settings, {} if keep_folds else None)

    def start(self, prepared: _FoldMatrices, recipe: BoosterRecipe, fold: int, checkpoint: bytes | None) -> FoldTrainer:
        """See BoosterEngine."""
        train, valid = prepared.pair(fold)

        def boost(params: dict[str, Any], rounds: int, stopping: EarlyStopping, model: bytes | None) -> xgboost.Booster:
            import xgboost

            return xgboost.train(
                params,
                train,
                num_boost_round=rounds,
                evals=[(valid, "valid")],
                callbacks=[_stopping_callback(stopping)],
                xgb_model=None if model is None else bytearray(model),
                verbose_eval=False,
            )

        return _XGBoostTrainer(boost, recipe, checkpoint)

    def start_distributed(
        self,
        reference: ray.ObjectRef[BoosterData],
        data: BoosterData,
        recipe: BoosterRecipe,
        fold: int,
        checkpoint: bytes | None,
    ) -> FoldTrainer:
        """See BoosterEngine. Every stretch between checkpoints is a call of xgboost_ray."""
        import xgboost_ray

        from train.boosters.ray_dmatrix import fold_matrix

        settings = recipe.settings
        train, valid = (
            fold_matrix(xgboost_ray.RayDMatrix, reference, rows, settings.swaps)
            for rows in (data.training_rows(fold), data.held_out(fold))
        )

        def boost(params: dict[str, Any], rounds: int, stopping: EarlyStopping, model: bytes | None) -> xgboost.Booster:
            call = {
                "params": params,
                "dtrain": train,
                "num_boost_round": rounds,
                "evals": [(valid, "valid")],
                "callbacks": [_stopping_callback(stopping)],
                "xgb_model": model,
            }
            return _train_on_ray(call, settings.cpus_per_worker, settings.num_workers)

        return _XGBoostTrainer(boost, recipe, checkpoint)

    def predict(self, model: bytes, features: Matrix, threads: int) -> Probabilities:
        """See BoosterEngine."""
        import xgboost

        booster = _load(model)
        booster.set_param({"nthread": threads})
        probabilities = booster.predict(xgboost.DMatrix(features.joined(), nthread=threads)).astype(np.float64)
        return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))  # float32 sums to 1 only to 1e-7

    def importance(self, model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
        """See BoosterEngine. TreeSHAP is XGBoost's own."""
        import xgboost

        booster = _load(model)
        booster.set_param({"nthread": threads})
        gain = np.zeros(features.width)
        for name, value in booster.get_score(importance_type="total_gain").items():
            gain[int(name[1:])] = value  # columns are called f0, f1, ...
        contributions = booster.predict(xgboost.DMatrix(features.joined(), nthread=threads), pred_contribs=True)
        return gain, mean_absolute_shap(np.asarray(contributions, np.float64))


def xgboost_params(recipe: BoosterRecipe, first_round: int = 0) -> dict[str, Any]:
    """Return the parameters of `xgboost.train` for the rounds from `first_round` up to the next checkpoint.

    XGBoost keeps random state that no model file holds.
    So each stretch between checkpoints has a seed of its own; the first stretch has the run's seed.
    """
    return {
        "tree_method": "hist",
        **recipe.settings.params,
        "objective": "multi:softprob",
        "num_class": recipe.classes,
        "eval_metric": "mlogloss",
        "nthread": recipe.settings.cpus_per_worker,
        "seed": recipe.seed + first_round,
        "verbosity": 1,
    }


def _train_on_ray(call: Mapping[str, Any], cpus: int, workers: int) -> xgboost.Booster:
    """Call xgboost_ray.train once with the arguments `call`. Raises WorkerDiedError if a training process died."""
    import xgboost_ray

    from train.boosters.ray_compat import reraise_cause

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`num_actors` in `ray_params` is smaller than 2")
        try:
            return xgboost_ray.train(
                **call,
                verbose_eval=False,
                ray_params=xgboost_ray.RayParams(
                    num_actors=workers,
                    cpus_per_actor=cpus,
                    gpus_per_actor=0,
                    max_actor_restarts=0,  # the fold pool restarts: xgboost_ray knows nothing of folds and seeds
                    checkpoint_frequency=call["num_boost_round"] + 1,  # the fold queue keeps the checkpoints
                    verbose=False,
                ),
            )
        except RuntimeError as error:
            reraise_cause(error, workers)


@dataclass
class _FoldMatrices:
    """The records, and what each fold trains on and holds out, kept where several candidates train on it."""

    data: BoosterData
    settings: Booster
    kept: dict[int, tuple[xgboost.DMatrix, xgboost.DMatrix]] | None

    def pair(self, fold: int) -> tuple[xgboost.DMatrix, xgboost.DMatrix]:
        """Return a fold's training and held-out records."""
        if self.kept is not None and fold in self.kept:
            return self.kept[fold]
        rows = self.data.training_rows(fold), self.data.held_out(fold)
        train, valid = (_matrix(self.data.sample(part, self.settings.swaps), self.settings) for part in rows)
        if self.kept is not None:
            self.kept[fold] = train, valid
        return train, valid


_Boost = Callable[[dict[str, Any], int, EarlyStopping, bytes | None], "xgboost.Booster"]


class _XGBoostTrainer(FoldTrainer):
    """A checkpoint is the model as UBJ with the state of early stopping inside."""

    def __init__(self, boost: _Boost, recipe: BoosterRecipe, checkpoint: bytes | None) -> None:
        self._boost, self._recipe, self._settings = boost, recipe, recipe.settings
        self._saved = checkpoint
        self._booster = None if checkpoint is None else _load(checkpoint)
        self._stopping = EarlyStopping(self._settings.early_stopping_rounds)
        if self._booster is not None:
            self._read_state(self._booster)
        self.done = self._resumed_at = 0 if self._booster is None else int(self._booster.num_boosted_rounds())
        self.finished = False

    def _read_state(self, booster: xgboost.Booster) -> None:
        state = json.loads(booster.attr(_STATE))
        self._stopping = EarlyStopping(self._settings.early_stopping_rounds, **state)

    @property
    def best_score(self) -> float:
        return self._stopping.best_score

    def advance(self) -> None:
        target = min(self._settings.rounds, self.done + self._settings.checkpoint_every)
        params = xgboost_params(self._recipe, self.done)
        self._booster = self._boost(params, target - self.done, self._stopping, self._saved)
        self._read_state(self._booster)
        self.done = self._booster.num_boosted_rounds()
        stopped = self._stopping.stopped(self.done)
        self.finished = stopped or self.done < target or self.done == self._settings.rounds
        if not self.finished:
            self._saved = bytes(self._booster.save_raw("ubj"))

    def checkpoint(self) -> bytes:
        assert self._saved is not None
        return self._saved

    def model(self) -> TrainedModel:
        assert self._booster is not None
        best = self._stopping.best_iteration
        kept = self._booster[:best]
        kept.set_attr(**{_STATE: None})
        return TrainedModel(bytes(kept.save_raw("ubj")), best, self.done, self._resumed_at)


def _matrix(sample: TrainingRows, settings: Booster) -> xgboost.DMatrix:
    import xgboost

    features, labels, weights = sample
    return xgboost.DMatrix(features.joined(), labels, weight=weights, nthread=settings.cpus_per_worker)


def _load(model: bytes) -> xgboost.Booster:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    return booster


def _stopping_callback(stopping: EarlyStopping) -> xgboost.callback.TrainingCallback:
    """Return a callback that stops training when `stopping` says so, and leaves its state in the booster."""
    from xgboost.callback import TrainingCallback

    class Stop(TrainingCallback):  # type: ignore[misc]
        def after_iteration(
            self, model: xgboost.Booster, epoch: int, evals_log: dict[str, dict[str, list[float]]]
        ) -> bool:
            return stopping.update(model.num_boosted_rounds(), evals_log["valid"]["mlogloss"][-1])

        def after_training(self, model: xgboost.Booster) -> xgboost.Booster:
            state = {"best_score": stopping.best_score, "best_iteration": stopping.best_iteration}
            model.set_attr(**{_STATE: json.dumps(state)})
            return model

    return Stop()
