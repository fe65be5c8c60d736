"""Run the trials of a search: Ray Tune over candidates, ASHA over boosting rounds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.tune.schedulers import ASHAScheduler

from core.placement import root_cause, wait_for_task
from core.registry import ENGINES
from core.settings.boosters import ROUNDS_PARAMETER
from core.settings.tune import check_searchable
from tune.space import Parameters, distributions, sample_candidates
from tune.trial import FoldsTrial, ModelsCallback, SearchJob

TRIAL_DEATHS_ALLOWED = 3  # of a trial's process


@dataclass(frozen=True)
class TrialResult:
    """A finished trial. If ASHA stopped it, its loss is that of the rounds it got."""

    number: int
    parameters: Parameters
    log_loss: float  # mean over folds of the least held-out log loss
    fold_losses: list[float]
    rounds: int
    stopped: bool  # by ASHA
    seconds: float  # of training
    at: float  # seconds after the search began, interrupted attempts included
    curve: list[tuple[int, float]] = field(default_factory=list)  # rounds and loss at each of its checkpoints


def run_trials(
    job: SearchJob,
    finished: Sequence[TrialResult],
    on_finished: Callable[[TrialResult], None],
    storage: str,
    on_wait: Callable[[str], None] = lambda reason: None,
    keep: ModelsCallback | None = None,
) -> None:
    """Run the trials that are not among `finished`, as many at a time as the cluster has free CPUs.

    `on_finished` is called as each ends. Random candidates depend on the seed alone. ASHA compares a trial with trials
    that are further along, including finished ones. TPE's candidates depend on the results so far. `on_wait` gets the
    reason while no CPU is free. `storage` is a folder or URI that all nodes can write, for checkpoints during the
    search. Once a trial's folds are fully trained, its process calls `keep` with the candidate and the models. Raises a
    trial's error.
    """
    reporter = _Reporter(finished, on_finished)
    configured = _candidates(job, finished)
    if configured is None:
        return
    wait_for_task(job.data, "reading the features", on_wait)
    # Fail before the first trial if a candidate would fail every trial.
    candidates = job.candidates or sample_candidates(job.space, job.recipe.seed, job.search.trials)
    checked = ray.remote(num_cpus=1)(_check_candidates).remote(job, candidates)
    wait_for_task(checked, "the parameter check", on_wait)
    try:
        ray.get(checked)
    except RayTaskError as error:
        raise root_cause(error) from None
    trainable = tune.with_resources(
        tune.with_parameters(FoldsTrial, job=job, keep=keep), {"CPU": job.recipe.settings.cpus_per_worker}
    )
    most = job.recipe.settings.rounds
    if ROUNDS_PARAMETER in job.space:
        most = max(most, int(job.space[ROUNDS_PARAMETER].high))
    # Ray Tune's own logs would fill the run; the trial table holds the results.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its banner is printed even with verbose=0
    # Ray Tune's own handler would end the search as if it were done.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Ray Tune saves its state at times, which nothing reads: a search resumes from the results of its trials.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    asha = ASHAScheduler(
        time_attr="rounds",
        metric="log_loss",
        mode="min",
        max_t=most + 1,  # trials end by themselves
        grace_period=min(job.search.grace_rounds, most),
        reduction_factor=job.search.reduction_factor,
    )
    for result in sorted(finished, key=lambda result: result.at):
        _replay(asha, result)
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
            failure_config=tune.FailureConfig(max_failures=TRIAL_DEATHS_ALLOWED),
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


def _replay(asha: ASHAScheduler, result: TrialResult) -> None:
    """Replay a trial of an interrupted search to the scheduler, so that other trials are compared with it."""
    trial = SimpleNamespace(trial_id=f"finished-{result.number}")  # a scheduler of results reads nothing else
    asha.on_trial_add(None, trial)
    for rounds, loss in result.curve:
        asha.on_trial_result(None, trial, {"rounds": rounds, "log_loss": loss})
    asha.on_trial_remove(None, trial)


def _check_candidates(job: SearchJob, candidates: Sequence[Parameters]) -> None:
    """Raise InputError for a parameter that would end a trial, or that no trial could vary."""
    settings = job.recipe.settings
    check_searchable(candidates[0], settings, job.search.key("space"))
    data = ray.get(job.data)
    for candidate in candidates:
        ENGINES.get(settings.engine).try_parameters(data, job.candidate_recipe(candidate))


@dataclass(frozen=True)
class _Configured:
    param_space: dict[str, Any]
    samples: int  # of the space
    trials: int
    algorithm: Any


def _candidates(job: SearchJob, finished: Sequence[TrialResult]) -> _Configured | None:
    """Return the candidates that Ray Tune is to try, or None if all trials are finished."""
    search, seed = job.search, job.recipe.seed
    missing_trials = search.trials - len(finished)
    if job.candidates is not None or search.sampler == "random":
        candidates = job.candidates or sample_candidates(job.space, seed, search.trials)
        done = {result.number for result in finished}
        missing = [n for n in range(len(candidates)) if n not in done]
        if not missing:
            return None
        grid = [{"number": n, "candidate": candidates[n]} for n in missing]
        return _Configured({"trial": tune.grid_search(grid)}, 1, len(grid), None)
    if missing_trials <= 0:
        return None
    from ray.tune.search.optuna import OptunaSearch

    algorithm = OptunaSearch(
        space=distributions(job.space),
        metric="log_loss",
        mode="min",
        seed=seed + len(finished),  # with the same seed it would propose the same candidates again
        points_to_evaluate=[result.parameters for result in finished] or None,
        evaluated_rewards=[result.log_loss for result in finished] or None,
    )
    return _Configured({}, missing_trials, missing_trials, algorithm)


class _Reporter(tune.Callback):  # type: ignore[misc]
    """Turns Ray Tune's events into trial results."""

    def __init__(self, finished: Sequence[TrialResult], on_finished: Callable[[TrialResult], None]) -> None:
        self._on_finished = on_finished
        self._next = max([result.number for result in finished], default=-1) + 1
        self._before = max([result.at for result in finished], default=0.0)
        self._started = time.monotonic()
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self.error: str | None = None  # of the first trial that failed
        self.ended = 0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:  # noqa: ANN401
        """Note a trial's loss at a checkpoint."""
        self._curves.setdefault(trial.trial_id, []).append((int(result["rounds"]), float(result["log_loss"])))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        """Report a trial that ended by itself or was stopped by ASHA."""
        last = trial.last_result
        if "error" in last:
            self.error = self.error or f"a trial failed: {last['error']} (parameters: {dict(trial.config)})"
            return
        numbered = trial.config.get("trial")  # None for TPE's candidates
        number = self._next if numbered is None else int(numbered["number"])
        self._next += numbered is None
        self.ended += 1
        self._on_finished(
            TrialResult(
                number=number,
                parameters=dict(trial.config if numbered is None else numbered["candidate"]),
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
    """Ends the search with the first trial that fails: the others would fail as well."""

    def __init__(self, reporter: _Reporter) -> None:
        self._reporter = reporter

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether to stop this trial: never."""
        return False

    def stop_all(self) -> bool:
        """Return whether to stop all."""
        return self._reporter.error is not None
