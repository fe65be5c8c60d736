"""LightGBM through lightgbm_ray. No other module imports lightgbm_ray."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
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
    import lightgbm
    import ray

    from core.arrays import Doubles, Probabilities, Rows
    from core.settings.boosters import Booster
    from train.boosters.data import BoosterData
    from train.boosters.matrix import Matrix

_FILES = (
    *("config", "data", "valid", "input_model", "output_model", "save_binary", "snapshot_freq"),
    *("forcedsplits_filename", "forcedbins_filename", "machine_list_filename", "parser_config_file"),
)
# By LightGBM's main name of each parameter; its aliases are refused as well.
_RESERVED = {
    "num_threads": "set cpus_per_worker",
    **dict.fromkeys(("seed", "data_random_seed"), "set the seed of the run"),
    "num_iterations": "set the rounds",
    "early_stopping_round": "set early_stopping_rounds",
    **dict.fromkeys(("machines", "num_machines", "local_listen_port", "tree_learner"), "set num_workers"),
    **dict.fromkeys(("objective", "num_class", "metric", "verbosity", "deterministic", "task"), "leave it out"),
    "feature_pre_filter": "leave it out",
    **dict.fromkeys(_FILES, "leave it out: training reads and writes no files of its own"),
}
_SEEDS = {"bagging_seed", "feature_fraction_seed", "extra_seed", "drop_seed", "objective_seed"}
# A binned Dataset is built with these; trees cannot change them later.
_BINNING = {
    *("max_bin", "max_bin_by_feature", "min_data_in_bin", "bin_construct_sample_cnt", "enable_bundle"),
    *("is_enable_sparse", "use_missing", "zero_as_missing", "linear_tree"),
}


@ENGINES.register
class LightGBMEngine(BoosterEngine):
    """Gradient boosted trees by LightGBM."""

    name = "lightgbm"
    title = "LightGBM"
    summary = "Gradient boosted trees, grown leaf by leaf; the fastest engine on many columns."
    model_file = "model.txt"
    libraries = ("lightgbm", "lightgbm-ray")
    distributed = True
    reserved = _RESERVED
    # The range reaches far towards plain models, which win while there are few votes.
    search_spaces: ClassVar[Mapping[str, Space]] = {
        "default": {
            "learning_rate": Dimension(low=0.01, high=0.1, log=True),
            "num_leaves": Dimension(low=4, high=64, log=True, integer=True),
            "min_data_in_leaf": Dimension(low=10, high=200, log=True, integer=True),
            "feature_fraction": Dimension(low=0.05, high=0.8, log=True),
            "bagging_fraction": Dimension(low=0.4, high=0.9),
            "lambda_l1": Dimension(low=1e-3, high=10.0, log=True),
            "lambda_l2": Dimension(low=0.1, high=100.0, log=True),
        }
    }

    def known_parameters(self) -> Collection[str]:
        """See BoosterEngine."""
        return _main_names()

    def main_name(self, name: str) -> str:
        """See BoosterEngine."""
        return _main_names().get(name, name)

    def fixed_by_data(self, name: str) -> bool:
        """See BoosterEngine."""
        return self.main_name(name) in _BINNING

    def check_settings(self, settings: Booster) -> None:
        """See BoosterEngine. Refuse the kinds of boosting that the rounds and checkpoints do not fit."""
        super().check_settings(settings)
        boosting = {self.main_name(name): value for name, value in settings.params.items()}.get("boosting")
        kind = {"rf": "a random forest", "random_forest": "a random forest", "dart": "dart"}.get(str(boosting))
        where = settings.key("params.boosting")
        if kind is not None and settings.rounds > settings.checkpoint_every:
            raise InputError(
                f"{kind} cannot resume from a checkpoint",
                where,
                f"set checkpoint_every to at least the rounds, {settings.rounds}.",
            )
        if boosting == "dart" and settings.early_stopping_rounds is not None:
            raise InputError(
                "dart changes earlier trees in later rounds, so its best round cannot be kept",
                where,
                "set early_stopping_rounds: null.",
            )

    def try_parameters(self, data: BoosterData, recipe: BoosterRecipe) -> None:
        """See BoosterEngine."""
        import lightgbm

        super().try_parameters(data, recipe)
        sample = data.trial_sample()
        try:
            lightgbm.train(lightgbm_params(recipe), lightgbm.Dataset(sample.features.joined(), sample.labels), 1)
        except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
            raise InputError(str(error), recipe.settings.key("params"), "see LightGBM's list of parameters.") from None

    def host(self, body: Callable[[], None], settings: Booster) -> None:
        """See BoosterEngine. Call it in a process whose placement group holds the CPUs.

        lightgbm_ray creates the given class (`model_factory`) in its actor and fits it there. Our class's fit is
        `body`, which trains fold after fold. One call of lightgbm_ray for each fold would start new processes each
        time.
        """
        import lightgbm_ray

        from train.boosters.ray_compat import without_helper_actors

        class Host:
            def __init__(self, **params: object) -> None:
                self._other_params = params  # lightgbm_ray removes its own entries after fit
                self.evals_result_: dict[str, Any] = {}

            def fit(self, *_: object, **__: object) -> None:
                body()

        rows = lightgbm_ray.RayDMatrix(np.zeros((3, 1), np.float32), np.arange(3, dtype=np.float32))
        with without_helper_actors():
            _train_on_ray(Host, rows, [], settings.cpus_per_worker, 1)

    def prepare(self, data: BoosterData, recipe: BoosterRecipe, keep_folds: bool = False) -> _Binned:
        """See BoosterEngine. All records are binned once, as in lightgbm.cv; a fold is a subset of them.

        A subset costs a copy of its bins, so folds are not kept.
        """
        import lightgbm

        both = recipe.settings.swaps
        everything = data.sample(np.arange(len(data.labels)), both)
        binned = lightgbm.Dataset(
            everything.features.joined(),
            everything.labels,
            weight=everything.weights,
            params=lightgbm_params(recipe),
            free_raw_data=False,  # trees after a checkpoint start from the scores of those before
        )
        return _Binned(data, binned.construct(), both)

    def start(self, prepared: _Binned, recipe: BoosterRecipe, fold: int, checkpoint: bytes | None) -> FoldTrainer:
        """See BoosterEngine."""
        rows = prepared.data.training_rows(fold), prepared.data.held_out(fold)
        train, valid = (prepared.subset(part) for part in rows)

        def boost(params: dict[str, Any], rounds: int, progress: _Progress) -> str:
            return _boost(params, rounds, progress, train, valid)

        return _LightGBMTrainer(boost, recipe, checkpoint)

    def start_distributed(
        self,
        reference: ray.ObjectRef[BoosterData],
        data: BoosterData,
        recipe: BoosterRecipe,
        fold: int,
        checkpoint: bytes | None,
    ) -> FoldTrainer:
        """See BoosterEngine. Every stretch between checkpoints is a call of lightgbm_ray."""
        import lightgbm_ray

        from train.boosters.ray_dmatrix import fold_matrix

        settings = recipe.settings
        train = fold_matrix(lightgbm_ray.RayDMatrix, reference, data.training_rows(fold), settings.swaps)
        # LightGBM's processes do not share their scores of held-out records, and all must stop at the same round.
        valid = fold_matrix(lightgbm_ray.RayDMatrix, reference, data.held_out(fold), settings.swaps, all_rows=True)

        def boost(params: dict[str, Any], rounds: int, progress: _Progress) -> str:
            class Stretch:
                def __init__(self, **ray_params: Any) -> None:  # noqa: ANN401 - lightgbm_ray's
                    self._other_params = ray_params
                    network = ("machines", "local_listen_port", "num_machines", "time_out", "tree_learner")
                    self.network = {name: ray_params[name] for name in network}
                    self.evals_result_: dict[str, Any] = {}
                    self.result: tuple[str, _Progress] | None = None

                def fit(self, features: Any, labels: Any, *, sample_weight: Any, eval_set: Any, **_: object) -> None:  # noqa: ANN401
                    import lightgbm

                    native = params | self.network
                    options = {"params": native, "free_raw_data": False}
                    train_set = lightgbm.Dataset(features, labels, weight=sample_weight, **options)
                    valid_set = lightgbm.Dataset(*eval_set[0], reference=train_set, **options)
                    self.result = _boost(native, rounds, progress, train_set, valid_set), progress

            fitted = _train_on_ray(Stretch, train, [(valid, "valid")], settings.cpus_per_worker, settings.num_workers)
            model, remote_progress = fitted.result
            progress.__dict__.update(remote_progress.__dict__)
            return str(model)

        return _LightGBMTrainer(boost, recipe, checkpoint)

    def predict(self, model: bytes, features: Matrix, threads: int) -> Probabilities:
        """See BoosterEngine."""
        import lightgbm

        booster = lightgbm.Booster(model_str=model.decode())
        return np.asarray(booster.predict(features.joined(), num_threads=threads))

    def importance(self, model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
        """See BoosterEngine. TreeSHAP is LightGBM's own."""
        import lightgbm

        booster = lightgbm.Booster(model_str=model.decode())
        contributions = booster.predict(features.joined(), pred_contrib=True, num_threads=threads)
        if isinstance(contributions, list):  # of sparse matrices, one for each class, for sparse features
            contributions = np.stack([matrix.toarray() for matrix in contributions], axis=1)
        by_class = np.asarray(contributions).reshape(len(features), -1, features.width + 1)
        return np.asarray(booster.feature_importance("gain"), np.float64), mean_absolute_shap(by_class)


@functools.cache
def _main_names() -> dict[str, str]:
    """Return LightGBM's own table of names: 10 ms to load from its library, 2 s with its package."""
    spec = None if "lightgbm" in sys.modules else importlib.util.find_spec("lightgbm")
    files = [] if spec is None or spec.origin is None else list(Path(spec.origin).parent.glob("lib/lib_lightgbm.*"))
    if files:
        library = ctypes.CDLL(str(files[0]))
        size, length = 1 << 20, ctypes.c_int64(0)
        text = ctypes.create_string_buffer(size)
        library.LGBM_DumpParamAliases(ctypes.c_int64(size), ctypes.byref(length), text)
        table = json.loads(text.value)
    else:
        import lightgbm

        table = lightgbm.basic._ConfigAliases._get_all_param_aliases()
    return {alias: main for main, aliases in table.items() for alias in (main, *aliases)}


def lightgbm_params(recipe: BoosterRecipe, first_round: int = 0) -> dict[str, Any]:
    """Return the parameters of `lightgbm.train` for the rounds from `first_round` up to the next checkpoint.

    LightGBM keeps random number generators that no model file holds.
    So each stretch between checkpoints has seeds of its own; the first stretch has the settings' seeds.
    """
    params: dict[str, Any] = dict(recipe.settings.params)
    for name in params:
        if _main_names().get(name) in _SEEDS:
            params[name] = params[name] + first_round
    return {
        **({} if params.get("force_col_wise") else {"force_row_wise": True}),
        **params,
        "objective": "multiclass",
        "num_class": recipe.classes,
        "metric": "multi_logloss",
        "num_threads": recipe.settings.cpus_per_worker,
        "seed": recipe.seed + first_round,
        "data_random_seed": recipe.seed,  # the histograms' bins stay the same throughout
        "deterministic": True,
        "feature_pre_filter": False,  # which columns may split must not depend on the settings that came first
        "verbosity": -1,
    }


def _train_on_ray(model: type, train: Any, evals: list[Any], cpus: int, workers: int) -> Any:  # noqa: ANN401
    """Call lightgbm_ray once; return the fitted `model` of its first process.

    Raises WorkerDiedError if a process died.
    """
    import lightgbm_ray

    from train.boosters.ray_compat import reraise_cause

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`num_actors` in `ray_params` is smaller than 2")
        warnings.filterwarnings("ignore", message="cpus_per_actor is set to less than 2")
        try:
            return lightgbm_ray.train(
                {},
                train,
                model_factory=model,
                evals=evals,
                verbose_eval=False,
                ray_params=lightgbm_ray.RayParams(
                    num_actors=workers,
                    cpus_per_actor=cpus,
                    gpus_per_actor=0,
                    max_actor_restarts=0,  # the fold pool restarts: lightgbm_ray knows nothing of folds and seeds
                    checkpoint_frequency=0,  # the fold queue keeps the checkpoints
                    verbose=False,
                    allow_less_than_two_cpus=True,
                ),
            )
        except RuntimeError as error:
            reraise_cause(error, workers)


@dataclass
class _Binned:
    """All records binned, followed by all swapped copies if `swap`."""

    data: BoosterData
    binned: lightgbm.Dataset
    swap: bool

    def subset(self, rows: Rows) -> lightgbm.Dataset:
        """Return some records, in both orders if `swap`.

        Each training needs a new one: an earlier training leaves its scores in the Dataset.
        """
        both = np.concatenate([rows, rows + len(self.data.labels)]) if self.swap else rows
        return self.binned.subset(both)


@dataclass
class _Progress(EarlyStopping):
    """The model so far, and the state of early stopping."""

    model: str | None = None
    rounds: int = 0  # trained; when it stops early LightGBM forgets those after the best

    def callback(self, env: lightgbm.callback.CallbackEnv) -> None:
        """Note a round. Raises LightGBM's EarlyStopException."""
        import lightgbm

        self.rounds = env.iteration + 1
        if self.update(self.rounds, env.evaluation_result_list[0][2]):
            raise lightgbm.callback.EarlyStopException(self.best_iteration - 1, env.evaluation_result_list)


def _boost(
    params: dict[str, Any], rounds: int, progress: _Progress, train: lightgbm.Dataset, valid: lightgbm.Dataset
) -> str:
    """Train some rounds more than `progress` has; return the model."""
    import lightgbm

    booster = lightgbm.train(
        params,
        train,
        num_boost_round=rounds,
        init_model=None if progress.model is None else lightgbm.Booster(model_str=progress.model),
        valid_sets=[valid],
        valid_names=["valid"],
        callbacks=[progress.callback],
    )
    return str(booster.model_to_string(num_iteration=-1))


_Boost = Callable[[dict[str, Any], int, _Progress], str]


class _LightGBMTrainer(FoldTrainer):
    """A checkpoint is JSON: the model as text and the state of early stopping."""

    def __init__(self, boost: _Boost, recipe: BoosterRecipe, checkpoint: bytes | None) -> None:
        self._boost, self._recipe, self._settings = boost, recipe, recipe.settings
        patience = recipe.settings.early_stopping_rounds
        self._progress = _Progress(**json.loads(checkpoint)) if checkpoint else _Progress(patience)
        self.done = self._resumed_at = self._progress.rounds
        self.finished = False

    @property
    def best_score(self) -> float:
        return self._progress.best_score

    def advance(self) -> None:
        target = min(self._settings.rounds, self.done + self._settings.checkpoint_every)
        params = lightgbm_params(self._recipe, self.done)
        self._progress.model = self._boost(params, target - self.done, self._progress)
        # Stopped early, the model ends at its best round, and `rounds` says how far training went.
        self.done = self._progress.rounds
        stopped = self._progress.stopped(self.done)
        self.finished = stopped or self.done < target or self.done == self._settings.rounds

    def checkpoint(self) -> bytes:
        return json.dumps(dataclasses.asdict(self._progress)).encode()

    def model(self) -> TrainedModel:
        import lightgbm

        assert self._progress.model is not None
        booster = lightgbm.Booster(model_str=self._progress.model)
        # Once no split gains anything, LightGBM counts rounds without growing trees.
        best = min(self._progress.best_iteration, booster.current_iteration())
        content = booster.model_to_string(num_iteration=best).encode()
        return TrainedModel(content, best, self._progress.rounds, self._resumed_at)
