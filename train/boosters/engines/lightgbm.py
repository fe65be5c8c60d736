"""LightGBM through lightgbm_ray; the only module that imports it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import warnings
from collections.abc import Callable, Mapping
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
    mean_absolute,
    refuse_reserved,
)
from train.boosters.ray_compat import raise_cause, without_helpers
from train.boosters.ray_dmatrix import fold_matrix

if TYPE_CHECKING:
    import lightgbm
    import ray

    from train.boosters.matrix import Matrix, Rows

# By LightGBM's main name of each; its aliases are refused as well.
_RESERVED = {
    **dict.fromkeys(("num_threads",), "set the CPUs per fold"),
    **dict.fromkeys(("seed", "data_random_seed"), "set the seed"),
    **dict.fromkeys(("num_iterations",), "set the rounds"),
    **dict.fromkeys(("early_stopping_round",), "set the early stopping rounds"),
    **dict.fromkeys(("machines", "num_machines", "local_listen_port", "tree_learner"), "folds run on one machine each"),
    **dict.fromkeys(
        ("objective", "num_class", "metric", "verbosity", "deterministic", "task", "feature_pre_filter"), "leave it out"
    ),
    **dict.fromkeys(
        (
            *("config", "data", "valid", "input_model", "output_model", "save_binary", "snapshot_freq"),
            *("forcedsplits_filename", "forcedbins_filename", "machine_list_filename", "parser_config_file"),
        ),
        "leave it out: training reads and writes no files of its own",
    ),
}


@functools.cache
def _main_names() -> dict[str, str]:
    """The main name of every parameter name that LightGBM knows: its own table, which it offers no public way to."""
    import lightgbm

    table = lightgbm.basic._ConfigAliases._get_all_param_aliases()
    return {alias: main for main, aliases in table.items() for alias in aliases}


def _refuse_bad_names(params: Mapping[str, Any]) -> None:
    """Raise InputError for parameters that the runner decides and, as LightGBM ignores them, for unknown ones."""
    known = _main_names()
    for name in params:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see LightGBM's list of parameters"
            raise InputError("LightGBM knows no such parameter", where=f"lightgbm params.{name}", fix=hint)
    refuse_reserved("lightgbm", {known[name]: value for name, value in params.items()}, _RESERVED)


def native_params(settings: BoosterSettings, first_round: int = 0) -> dict[str, Any]:
    """The parameters that `lightgbm.train` gets for the rounds from `first_round` up to the next checkpoint.

    LightGBM keeps random number generators that no model file holds, so each stretch between checkpoints has seeds
    of its own; the first has the given ones.
    """
    _refuse_bad_names(settings.params)
    given = dict(settings.params)
    for name in given:
        if main_name(name) in _SEEDS:
            given[name] = given[name] + first_round
    return {
        **({} if given.get("force_col_wise") else {"force_row_wise": True}),
        **given,
        "objective": "multiclass",
        "num_class": 3,
        "metric": "multi_logloss",
        "num_threads": settings.cpus_per_fold,
        "seed": settings.seed + first_round,
        "data_random_seed": settings.seed,  # the histograms' bins stay the same throughout
        "deterministic": True,
        "feature_pre_filter": False,  # what a column may split on shall not depend on which settings came first
        "verbosity": -1,
    }


_SEEDS = {"bagging_seed", "feature_fraction_seed", "extra_seed", "drop_seed", "objective_seed"}

# What a binned Dataset is made with; trees cannot ask for another value afterwards.
_BINNING = {
    *("max_bin", "max_bin_by_feature", "min_data_in_bin", "bin_construct_sample_cnt", "enable_bundle"),
    *("is_enable_sparse", "use_missing", "zero_as_missing", "linear_tree"),
}


def main_name(name: str) -> str:
    """See train.boosters.data.Engine.main_name."""
    return _main_names().get(name, name)


def fixed_by_data(name: str) -> bool:
    """See train.boosters.data.Engine.fixed_by_data."""
    return main_name(name) in _BINNING


def check(data: BoosterData, settings: BoosterSettings) -> None:
    """See train.boosters.data.Engine.check."""
    import lightgbm

    params = native_params(settings)
    boosting = {_main_names()[name]: value for name, value in settings.params.items()}.get("boosting")
    what = {"rf": "a random forest", "random_forest": "a random forest", "dart": "dart"}.get(str(boosting))
    if what is not None and settings.rounds > settings.checkpoint_every:
        raise InputError(
            f"{what} cannot go on from a checkpoint",
            where="lightgbm params.boosting",
            fix=f"set checkpoint_every to at least the rounds, {settings.rounds}",
        )
    if boosting == "dart" and settings.early_stopping_rounds is not None:
        raise InputError(
            "dart changes earlier trees as it goes on, so that its best round cannot be kept",
            where="lightgbm params.boosting",
            fix="set early_stopping_rounds: null",
        )
    sample = data.sample(np.arange(min(TRIAL_ROWS, len(data.labels))), both_orders=False)
    try:
        lightgbm.train(params, lightgbm.Dataset(sample.features.joined(), sample.labels), 1)
    except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
        raise InputError(str(error), where="lightgbm params", fix="see LightGBM's list of parameters") from None


def host(body: Callable[[], None], settings: BoosterSettings) -> None:
    """See train.boosters.data.Engine.host. Call it in a process whose placement group holds the CPUs.

    lightgbm_ray makes the class that it is given (`model_factory`) in its actor and fits it there; this one's fit is
    `body`, which trains fold after fold. One call of the wrapper for every fold would start processes for each.
    """
    import lightgbm_ray

    class Host:
        def __init__(self, **params: object) -> None:
            self._other_params = params  # the wrapper removes its own entries after fit
            self.evals_result_: dict[str, Any] = {}

        def fit(self, *_: object, **__: object) -> None:
            body()

    rows = lightgbm_ray.RayDMatrix(np.zeros((3, 1), np.float32), np.arange(3, dtype=np.float32))
    with without_helpers():
        _train_with_wrapper(Host, rows, [], dataclasses.replace(settings, actors_per_fold=1))


def _train_with_wrapper(model: type, train: Any, evals: list[Any], settings: BoosterSettings) -> Any:  # noqa: ANN401
    """One call of lightgbm_ray: the fitted `model` of its first process. Raises WorkerDiedError if a process died."""
    import lightgbm_ray

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
                    num_actors=settings.actors_per_fold,
                    cpus_per_actor=settings.cpus_per_fold,
                    gpus_per_actor=0,
                    max_actor_restarts=0,  # restarts are ours: the wrapper's know nothing of folds and seeds
                    checkpoint_frequency=0,  # so are checkpoints
                    verbose=False,
                    allow_less_than_two_cpus=True,
                ),
            )
        except RuntimeError as error:
            raise_cause(error, settings.actors_per_fold)


@dataclass
class _Prepared:
    data: BoosterData
    binned: lightgbm.Dataset  # all records, and behind them all swapped copies
    both_orders: bool

    def subset(self, rows: Rows) -> lightgbm.Dataset:
        """Some records in both orders. Made anew for each training: what was trained before leaves its scores in it."""
        both = np.concatenate([rows, rows + len(self.data.labels)]) if self.both_orders else rows
        return self.binned.subset(both)


def prepare(data: BoosterData, settings: BoosterSettings, keep_folds: bool = False) -> _Prepared:
    """See train.boosters.data.Engine.prepare. All records are binned once, as in lightgbm.cv; a fold is a subset of them.

    A subset costs a copy of its bins, so folds are not kept.
    """
    import lightgbm

    everything = data.sample(np.arange(len(data.labels)), settings.both_orders)
    binned = lightgbm.Dataset(
        everything.features.joined(),
        everything.labels,
        weight=everything.weights,
        params=native_params(settings),
        free_raw_data=False,  # trees after a checkpoint start from the scores of those before
    )
    return _Prepared(data, binned.construct(), settings.both_orders)


def start(prepared: _Prepared, fold: int, settings: BoosterSettings, checkpoint: bytes | None) -> LightgbmTrainer:
    """See train.boosters.data.Engine.start."""
    train, valid = (prepared.subset(rows) for rows in (prepared.data.rest(fold), prepared.data.held_out(fold)))

    def boost(params: dict[str, Any], rounds: int, state: Stopping) -> str:
        return _boost(params, rounds, state, train, valid)

    return LightgbmTrainer(boost, settings, checkpoint)


def start_distributed(
    shared: list[ray.ObjectRef[BoosterData]],
    data: BoosterData,
    fold: int,
    settings: BoosterSettings,
    checkpoint: bytes | None,
) -> LightgbmTrainer:
    """See train.boosters.data.Engine.start_distributed. Every stretch between checkpoints is a call of lightgbm_ray."""
    import lightgbm_ray

    train = fold_matrix(lightgbm_ray.RayDMatrix, shared, data.rest(fold), settings.both_orders)
    # LightGBM's processes do not share what they see of held-out records, and all must stop at the same round.
    valid = fold_matrix(lightgbm_ray.RayDMatrix, shared, data.held_out(fold), settings.both_orders, whole=True)

    def boost(params: dict[str, Any], rounds: int, state: Stopping) -> str:
        class Stretch:
            def __init__(self, **wrapper_params: Any) -> None:  # noqa: ANN401 - the wrapper's
                self._other_params = wrapper_params
                network = ("machines", "local_listen_port", "num_machines", "time_out", "tree_learner")
                self.network = {name: wrapper_params[name] for name in network}
                self.evals_result_: dict[str, Any] = {}
                self.found: tuple[str, Stopping] | None = None

            def fit(self, features: Any, labels: Any, *, sample_weight: Any, eval_set: Any, **_: object) -> None:  # noqa: ANN401
                import lightgbm

                asked = params | self.network
                train_set = lightgbm.Dataset(features, labels, weight=sample_weight, params=asked, free_raw_data=False)
                valid_set = lightgbm.Dataset(*eval_set[0], reference=train_set, params=asked, free_raw_data=False)
                self.found = _boost(asked, rounds, state, train_set, valid_set), state

        fitted = _train_with_wrapper(Stretch, train, [(valid, "valid")], settings)
        model, theirs = fitted.found
        state.__dict__.update(theirs.__dict__)
        return str(model)

    return LightgbmTrainer(boost, settings, checkpoint)


@dataclass
class Stopping:
    """The model so far, and what early stopping knows of it."""

    patience: int | None
    model: str | None = None
    best_score: float = float("inf")
    best_iteration: int = 0
    rounds: int = 0  # trained, of which LightGBM forgets those after the best when it stops early

    def look(self, env: lightgbm.callback.CallbackEnv) -> None:
        """LightGBM's callback after each round. Raises its EarlyStopException."""
        import lightgbm

        self.rounds = env.iteration + 1
        score = env.evaluation_result_list[0][2]
        if self.patience is None or score < self.best_score:
            self.best_score, self.best_iteration = score, self.rounds
        elif self.rounds - self.best_iteration >= self.patience:
            raise lightgbm.callback.EarlyStopException(self.best_iteration - 1, env.evaluation_result_list)


def _boost(
    params: dict[str, Any], rounds: int, state: Stopping, train: lightgbm.Dataset, valid: lightgbm.Dataset
) -> str:
    """Train some rounds more than `state` has; returns the model."""
    import lightgbm

    booster = lightgbm.train(
        params,
        train,
        num_boost_round=rounds,
        init_model=None if state.model is None else lightgbm.Booster(model_str=state.model),
        valid_sets=[valid],
        valid_names=["valid"],
        callbacks=[state.look],
    )
    return str(booster.model_to_string(num_iteration=-1))


Boost = Callable[[dict[str, Any], int, Stopping], str]


class LightgbmTrainer:
    """See train.boosters.data.Trainer. A checkpoint is JSON: the model as text and the state of early stopping."""

    def __init__(self, boost: Boost, settings: BoosterSettings, checkpoint: bytes | None) -> None:
        self._boost, self._settings = boost, settings
        self._state = Stopping(**json.loads(checkpoint)) if checkpoint else Stopping(self._patience)
        self.done = self._resumed_at = self._state.rounds
        self.finished = False

    @property
    def _patience(self) -> int | None:
        return self._settings.early_stopping_rounds

    @property
    def best_score(self) -> float:
        """See train.boosters.data.Trainer."""
        return self._state.best_score

    def advance(self) -> None:
        """See train.boosters.data.Trainer."""
        target = min(self._settings.rounds, self.done + self._settings.checkpoint_every)
        self._state.model = self._boost(native_params(self._settings, self.done), target - self.done, self._state)
        # Stopped early, the model ends at its best round, and `rounds` tells how far it went.
        stopped = self._patience is not None and self._state.rounds - self._state.best_iteration >= self._patience
        self.done = self._state.rounds
        self.finished = stopped or self.done < target or self.done == self._settings.rounds

    def checkpoint(self) -> bytes:
        """See train.boosters.data.Trainer."""
        return json.dumps(dataclasses.asdict(self._state)).encode()

    def fit(self) -> Fit:
        """See train.boosters.data.Trainer."""
        import lightgbm

        assert self._state.model is not None
        booster = lightgbm.Booster(model_str=self._state.model)
        # Once no split gains anything, LightGBM counts on without growing trees.
        best = min(self._state.best_iteration, booster.current_iteration())
        return Fit(booster.model_to_string(num_iteration=best).encode(), best, self._state.rounds, self._resumed_at)


def predict(model: bytes, features: Matrix, threads: int) -> Probabilities:
    """Probabilities (n, 3) of the text `model`."""
    import lightgbm

    booster = lightgbm.Booster(model_str=model.decode())
    return np.asarray(booster.predict(features.joined(), num_threads=threads))


def importance(model: bytes, features: Matrix, threads: int) -> tuple[Doubles, Doubles]:
    """See train.boosters.data.Engine.importance; TreeSHAP is LightGBM's own."""
    import lightgbm

    booster = lightgbm.Booster(model_str=model.decode())
    contributions = booster.predict(features.joined(), pred_contrib=True, num_threads=threads)
    if isinstance(contributions, list):  # of sparse matrices, one for each class, for sparse features
        contributions = np.stack([each.toarray() for each in contributions], axis=1)
    by_class = np.asarray(contributions).reshape(len(features), 3, features.width + 1)
    return np.asarray(booster.feature_importance("gain"), np.float64), mean_absolute(by_class)
