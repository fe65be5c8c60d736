"""LightGBM through lightgbm_ray; the only module that imports it."""

import difflib
import functools
import json
import warnings
from collections.abc import Callable, Mapping
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
    import lightgbm
    import pandas as pd

    _Pair = tuple[pd.DataFrame, pd.Series]

# By LightGBM's main name of each; its aliases are refused as well.
_RESERVED = {
    **dict.fromkeys(("num_threads",), "set the CPUs per fold"),
    **dict.fromkeys(("seed", "data_random_seed"), "set the seed"),
    **dict.fromkeys(("num_iterations",), "set the rounds"),
    **dict.fromkeys(("early_stopping_round",), "set the early stopping rounds"),
    **dict.fromkeys(("machines", "num_machines", "local_listen_port", "tree_learner"), "folds run on one machine each"),
    **dict.fromkeys(("objective", "num_class", "metric", "verbosity", "deterministic", "task"), "leave it out"),
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
    for name in ("bagging_seed", "feature_fraction_seed", "extra_seed", "drop_seed", "objective_seed"):
        if name in given:
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
        "verbosity": -1,
    }


def fit(
    train: tuple[Features, Labels],
    valid: tuple[Features, Labels],
    settings: BoosterSettings,
    checkpoint: bytes | None,
    save: Callable[[bytes], None],
) -> Fit:
    """See train.booster.Engine.fit. A checkpoint is JSON: the model as text and the state of early stopping.

    Call it in a process whose placement group holds the CPUs: the wrapper then starts its actors there. Groups of its
    own it would not remove after a failure.
    """
    import lightgbm_ray

    _try_params(settings, train)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`num_actors` in `ray_params` is smaller than 2")
        warnings.filterwarnings("ignore", message="cpus_per_actor is set to less than 2")
        try:
            model = lightgbm_ray.train(
                {},
                lightgbm_ray.RayDMatrix(*train),
                model_factory=_fold_model(settings, checkpoint, save),
                evals=[(lightgbm_ray.RayDMatrix(*valid), "valid")],
                verbose_eval=False,
                # Restarts are ours: the wrapper's begin early stopping anew and draw other random numbers.
                ray_params=lightgbm_ray.RayParams(
                    num_actors=1,
                    cpus_per_actor=settings.cpus_per_fold,
                    gpus_per_actor=0,
                    max_actor_restarts=0,
                    checkpoint_frequency=0,
                    verbose=False,
                    allow_less_than_two_cpus=True,
                ),
            )
        except RuntimeError as error:
            cause = root_cause(error)
            if is_death(cause):
                raise WorkerDiedError(str(cause)) from error
            raise cause from None
    if model.error is not None:
        raise model.error
    result: Fit = model.result
    return result


def predict(model: bytes, features: Features, threads: int) -> Probabilities:
    """Probabilities (n, 3) of the text `model` for features (n, d)."""
    import lightgbm

    booster = lightgbm.Booster(model_str=model.decode())
    return np.asarray(booster.predict(features, num_threads=threads))


def _try_params(settings: BoosterSettings, train: tuple[Features, Labels]) -> None:
    """Raise InputError if LightGBM refuses the parameters, on a few rows and before any process starts."""
    import lightgbm

    params = native_params(settings)
    try:
        lightgbm.train(params, lightgbm.Dataset(train[0][:TRIAL_ROWS], train[1][:TRIAL_ROWS]), 1)
    except (lightgbm.basic.LightGBMError, ValueError, TypeError) as error:
        raise InputError(str(error), where="lightgbm params", fix="see LightGBM's list of parameters") from None


def _fold_model(settings: BoosterSettings, checkpoint: bytes | None, save: Callable[[bytes], None]) -> type:
    """The class that lightgbm_ray makes and fits in its actor (its argument `model_factory`).

    It trains from checkpoint to checkpoint, each time from the model as saved, so that an undisturbed run goes the very
    way of a resumed one. The parameters that the wrapper adds (its ports and machines) are left aside: they serve
    several machines and would make the model's text differ from run to run. So are its callbacks, which ask an actor
    before each round whether to stop; a cancelled fold loses its processes instead.
    """

    class FoldModel:
        def __init__(self, **wrapper_params: object) -> None:
            self._other_params = wrapper_params  # the wrapper removes its own entries after fit
            self.evals_result_: dict[str, Any] = {}
            self.result: Fit | None = None
            self.error: Exception | None = None

        def fit(self, features: "pd.DataFrame", labels: "pd.Series", *, eval_set: "list[_Pair]", **_: object) -> None:
            # The wrapper reports only that "training failed"; the reason comes home here.
            try:
                self.result = self._train((features, labels), eval_set[0])
            except Exception as error:
                self.error = error

        def _train(self, train: "_Pair", valid: "_Pair") -> Fit:
            import lightgbm

            state: dict[str, Any] = {"model": None, "best_score": float("inf"), "best_iteration": 0}
            if checkpoint is not None:
                state = json.loads(checkpoint)
            booster = None if state["model"] is None else lightgbm.Booster(model_str=state["model"])
            done = 0 if booster is None else booster.current_iteration()
            resumed_at = done
            train_array, valid_array = train[0].to_numpy(), valid[0].to_numpy()

            def early_stopping(env: "lightgbm.callback.CallbackEnv") -> None:
                state["rounds"] = env.iteration + 1  # when it stops early, LightGBM forgets those after the best
                score = env.evaluation_result_list[0][2]
                if settings.early_stopping_rounds is None or score < state["best_score"]:
                    state.update(best_score=score, best_iteration=env.iteration + 1)
                elif env.iteration + 1 - state["best_iteration"] >= settings.early_stopping_rounds:
                    raise lightgbm.callback.EarlyStopException(state["best_iteration"] - 1, env.evaluation_result_list)

            while done < settings.rounds:
                params = native_params(settings, done)
                target = min(settings.rounds, done + settings.checkpoint_every)
                dataset = lightgbm.Dataset(train_array, train[1].to_numpy(), params=params)
                booster = lightgbm.train(
                    params,
                    dataset,
                    num_boost_round=target - done,
                    init_model=booster,
                    valid_sets=[lightgbm.Dataset(valid_array, valid[1].to_numpy(), reference=dataset, params=params)],
                    callbacks=[early_stopping],
                )
                done = booster.current_iteration()
                if done < target or done == settings.rounds:
                    break
                state["model"] = booster.model_to_string(num_iteration=-1)
                save(json.dumps(state).encode())
                booster = lightgbm.Booster(model_str=state["model"])
            assert booster is not None  # a checkpoint always leaves rounds to do
            # Once no split gains anything, LightGBM counts on without growing trees.
            best = min(int(state["best_iteration"]), done)
            return Fit(booster.model_to_string(num_iteration=best).encode(), best, state["rounds"], resumed_at)

    return FoldModel
