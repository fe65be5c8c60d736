"""The search for a booster's settings: Ray Tune over candidates, ASHA over boosting rounds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler

from core.errors import InputError
from core.placement import root_cause, wait_for
from train.boosters.fold_pool import EngineName, engine_of
from tune.space import ROUNDS, Parameters, Space, distributions, draw
from tune.trial import FoldsTrial, Keep, with_parameters

if TYPE_CHECKING:
    from train.boosters.data import BoosterData, BoosterSettings

DEATHS_ALLOWED = 3  # of a trial's process


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and how."""

    engine: EngineName
    base: BoosterSettings  # what the space does not name
    space: Space
    trials: int
    sampler: Literal["random", "tpe"]
    groups: int  # folds of a trial, made of the data's own
    grace_rounds: int  # no trial is stopped before
    reduction: int  # one trial in so many goes on at each rung
    seed: int
    candidates: Sequence[Parameters] | None = None  # instead of drawing from the space


@dataclass(frozen=True)
class TrialResult:
    """A finished trial. ASHA may have stopped it: then its loss is that of the rounds it got."""

    number: int
    parameters: Parameters
    log_loss: float  # mean over folds of the least held-out log loss
    fold_losses: list[float]
    rounds: int
    stopped: bool  # by ASHA
    seconds: float  # of training
    at: float  # seconds after the search began, those of interrupted attempts counted
    curve: list[tuple[int, float]] = field(default_factory=list)  # rounds and loss at each of its checkpoints


def search(
    data: ray.ObjectRef[BoosterData],
    settings: SearchSettings,
    finished: Sequence[TrialResult],
    on_finished: Callable[[TrialResult], None],
    storage: str,
    on_wait: Callable[[str], None] = lambda reason: None,
    keep: Keep | None = None,
) -> None:
    """Run the trials that are not among `finished`, as many at a time as the cluster has free CPUs.

    `on_finished` is called as each ends. Random candidates and what becomes of them depend on the seed alone, but for
    ASHA, which compares a trial with those that happen to be further, finished ones among them; TPE's candidates follow
    from the results so far. `on_wait` is told why nothing begins while no CPU is free. `storage` is a folder or URI
    that all nodes can write, for checkpoints while the search lasts. `keep` is called in a trial's process with its
    candidate and its folds' models when it has trained them to their end. Raises what a trial fails with.
    """
    reporter = _Reporter(finished, on_finished)
    configured = _candidates(settings, finished)
    if configured is None:
        return
    wait_for(data, "reading the features", on_wait)
    # What would end every trial ends the search before any.
    drawn = settings.candidates or draw(settings.space, settings.seed, settings.trials)
    checked = ray.remote(num_cpus=1)(_check).remote(settings, [data], drawn)
    wait_for(checked, "a look at the parameters", on_wait)
    try:
        ray.get(checked)
    except RayTaskError as error:
        raise root_cause(error) from None
    trainable = tune.with_resources(
        tune.with_parameters(
            FoldsTrial,
            engine=settings.engine,
            shared=[data],
            settings=settings.base,
            groups=settings.groups,
            keep=keep,
        ),
        {"CPU": settings.base.cpus_per_fold},
    )
    most = max([settings.base.rounds, *(int(each.high) for name, each in settings.space.items() if name == ROUNDS)])
    # Tune's own logs would fill the run; ours are in the trial table.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # whose banner comes even with verbose=0
    # Its own handler would end the search as if it were done.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Tune saves its own state now and then, which nobody reads: what a search resumes from are its trials' results.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    asha = ASHAScheduler(
        time_attr="rounds",
        metric="log_loss",
        mode="min",
        max_t=most + 1,  # trials end by themselves
        grace_period=min(settings.grace_rounds, most),
        reduction_factor=settings.reduction,
    )
    for result in sorted(finished, key=lambda each: each.at):
        _tell_of_finished(asha, result)
    tuner = tune.Tuner(
        trainable,
        param_space=configured.param_space,
        tune_config=tune.TuneConfig(
            num_samples=configured.samples,
            search_alg=configured.algorithm,
            scheduler=asha,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=storage,
            verbose=0,
            stop=_StopAtError(reporter),
            callbacks=[reporter],
            failure_config=tune.FailureConfig(max_failures=DEATHS_ALLOWED),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
        ),
    )
    results = tuner.fit()
    if reporter.error is not None:
        raise RuntimeError(reporter.error)
    if results.errors:
        raise root_cause(results.errors[0])
    if reporter.ended < configured.trials:
        raise RuntimeError(f"the search ended after {reporter.ended} of {configured.trials} trials")


def _tell_of_finished(asha: ASHAScheduler, result: TrialResult) -> None:
    """Show a scheduler what a trial of an interrupted search reached, so that others are measured against it."""
    trial = SimpleNamespace(trial_id=f"finished-{result.number}")  # all that a scheduler of results asks of a trial
    asha.on_trial_add(None, trial)
    for rounds, loss in result.curve:
        asha.on_trial_result(None, trial, {"rounds": rounds, "log_loss": loss})
    asha.on_trial_remove(None, trial)


def _check(
    settings: SearchSettings, shared: list[ray.ObjectRef[BoosterData]], candidates: Sequence[Parameters]
) -> None:
    """Raise InputError for what would end a trial, or would make trials search nothing."""
    library = engine_of(settings.engine)
    searched = {library.main_name(name): name for name in candidates[0] if name != ROUNDS}
    for name in settings.base.params:
        other = searched.get(library.main_name(name), name)
        if other != name:
            raise InputError(
                f"{name} and the search's {other} are one parameter",
                where=f"{settings.engine} params.{name}",
                fix="leave it out, or search it under that name",
            )
    for name in searched.values():
        if library.fixed_by_data(name):
            raise InputError(
                "all trials share one binned matrix, which settles this parameter",
                where=f"{settings.engine} space.{name}",
                fix="set it in the booster's params",
            )
    data = ray.get(shared[0])
    for candidate in candidates:
        library.check(data, with_parameters(settings.base, candidate))


@dataclass(frozen=True)
class _Configured:
    param_space: dict[str, Any]
    samples: int  # of the space
    trials: int
    algorithm: Any


def _candidates(settings: SearchSettings, finished: Sequence[TrialResult]) -> _Configured | None:
    """What Ray Tune shall try, or None if nothing is left."""
    left = settings.trials - len(finished)
    if settings.candidates is not None or settings.sampler == "random":
        drawn = settings.candidates or draw(settings.space, settings.seed, settings.trials)
        done = {result.number for result in finished}
        missing = [n for n in range(len(drawn)) if n not in done]
        if not missing:
            return None
        grid = [{"number": n, "candidate": drawn[n]} for n in missing]
        return _Configured({"trial": tune.grid_search(grid)}, 1, len(grid), None)
    if left <= 0:
        return None
    from ray.tune.search.optuna import OptunaSearch

    algorithm = OptunaSearch(
        space=distributions(settings.space),
        metric="log_loss",
        mode="min",
        seed=settings.seed + len(finished),  # else it would propose again what it proposed before
        points_to_evaluate=[result.parameters for result in finished] or None,
        evaluated_rewards=[result.log_loss for result in finished] or None,
    )
    return _Configured({}, left, left, algorithm)


class _Reporter(tune.Callback):  # type: ignore[misc]
    """Turns Ray Tune's events into trial results."""

    def __init__(self, finished: Sequence[TrialResult], on_finished: Callable[[TrialResult], None]) -> None:
        self._on_finished = on_finished
        self._next = max([result.number for result in finished], default=-1) + 1
        self._before = max([result.at for result in finished], default=0.0)
        self._started = time.monotonic()
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self.error: str | None = None  # what the first trial that failed said
        self.ended = 0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:  # noqa: ANN401
        """A trial reached a checkpoint."""
        self._curves.setdefault(trial.trial_id, []).append((int(result["rounds"]), float(result["log_loss"])))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        """A trial ended by itself or was stopped by ASHA."""
        last = trial.last_result
        if "error" in last:
            self.error = self.error or f"a trial failed: {last['error']} (it tried {dict(trial.config)})"
            return
        drawn = trial.config.get("trial")
        number = self._next if drawn is None else int(drawn["number"])
        self._next += drawn is None
        self.ended += 1
        self._on_finished(
            TrialResult(
                number=number,
                parameters=dict(trial.config if drawn is None else drawn["candidate"]),
                log_loss=float(last["log_loss"]),
                fold_losses=[float(loss) for loss in last["fold_losses"]],
                rounds=int(last["rounds"]),
                stopped=not last["finished"],
                seconds=float(last["time_total_s"]),
                at=self._before + time.monotonic() - self._started,
                curve=self._curves.pop(trial.trial_id, []),
            )
        )


class _StopAtError(tune.Stopper):  # type: ignore[misc]
    """Ends the search with the first trial that fails: the others would fail alike."""

    def __init__(self, reporter: _Reporter) -> None:
        self._reporter = reporter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial: never."""
        return False

    def stop_all(self) -> bool:
        """Whether to stop all."""
        return self._reporter.error is not None
