"""Fine-tune folds on Ray Train. Each fold has its own group of workers, and is resumable by epoch."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.util.placement_group import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.errors import InputError
from core.placement import FIRST_REPORT_SECONDS, POLL_SECONDS, REPORT_SECONDS, describe_shortage
from core.resources import worker_resources
from train.finetune.gradients import PeerLostError
from train.finetune.loop import train_worker

if TYPE_CHECKING:
    from train.finetune.task import FoldTask

WORKER_DEATHS_ALLOWED = 3  # of a fold's workers between two of its checkpoints
StorageLocation = tuple[Any, str]  # a pyarrow file system and a folder there that all nodes reach


class FineTuningError(Exception):
    """A fold failed; the others were cancelled. The parts are kept so that the error survives pickling."""

    def __init__(self, fold: int, cause: str) -> None:
        super().__init__(fold, cause)
        self.fold = fold
        self.cause = cause

    def __str__(self) -> str:
        return f"fold {self.fold} of fine-tuning failed: {self.cause}"


class ProgressLog:
    """An actor that keeps the workers' progress lines until the driver fetches them."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str]] = []
        self._begun: set[int] = set()

    def post(self, fold: int, text: str) -> None:
        """Keep a line about a fold."""
        self._lines.append((fold, text))
        self._begun.add(fold)

    def drain(self) -> tuple[list[tuple[int, str]], set[int]]:
        """Return the lines since the last call, and all folds that ever posted one."""
        lines, self._lines = self._lines, []
        return lines, self._begun


def fine_tune(
    tasks: Sequence[FoldTask],
    storage: StorageLocation,
    at_once: int,
    on_progress: Callable[[int, str], None] = lambda fold, text: None,
    on_wait: Callable[[str], None] = lambda reason: None,
) -> Iterator[int]:
    """Train the tasks' folds, `at_once` at a time, and yield each fold when its store has its result.

    `storage` is where Ray Train keeps its own notes. A fold that loses a worker resumes from its last checkpoint and
    ends with the same model. While no worker has started, `on_wait` gets the reason after 3 s and then every 10 s.

    Raises InputError if a worker raises it, and FineTuningError for any other failure. Then, and when the caller closes
    the generator, all folds end.
    """
    driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    messages = ray.remote(ProgressLog).options(num_cpus=0, scheduling_strategy=driver_node).remote()
    fit = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=driver_node)(_fit)
    waiting = list(tasks)
    running: dict[ray.ObjectRef[None], FoldTask] = {}
    next_report = time.monotonic() + FIRST_REPORT_SECONDS
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                task = waiting.pop(0)
                running[fit.remote(dataclasses.replace(task, progress=messages), storage)] = task
            ended, _ = ray.wait(list(running), num_returns=len(running), timeout=POLL_SECONDS)
            lines, begun = ray.get(messages.drain.remote())
            for fold, text in lines:
                on_progress(fold, text)
            if any(task.fold in begun for task in running.values()):
                next_report = time.monotonic() + FIRST_REPORT_SECONDS
            elif time.monotonic() >= next_report:
                next_report = time.monotonic() + REPORT_SECONDS
                settings = tasks[0].settings
                on_wait(_why_waiting(settings.num_workers, settings.cpus_per_worker, settings.gpus_per_worker))
            for reference in ended:
                task = running.pop(reference)
                _raise_failure(reference, task)
                yield task.fold
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(messages)


def _why_waiting(workers: int, cpus: int, gpus: int) -> str:
    if not any(group["state"] == "PENDING" for group in placement_group_table().values()):
        return "the workers are starting"
    if gpus:
        free = ray.available_resources().get("GPU", 0.0)
        return (
            f"{workers} workers need {gpus} GPUs each; {free:g} of {ray.cluster_resources().get('GPU', 0):g} are free"
        )
    return describe_shortage(f"each of {workers} workers", cpus)


def _raise_failure(reference: ray.ObjectRef[None], task: FoldTask) -> None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from error
        raise FineTuningError(task.fold, str(error.cause)) from error
    except RayError as error:
        raise FineTuningError(task.fold, f"{type(error).__name__}: {error}") from error


def _fit(task: FoldTask, storage: StorageLocation) -> None:
    """Train one fold. It runs in a Ray task, since a call of Ray Train's returns only at the end."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train takes an epoch's numbers when it looks at the workers, every 2 s by default; small epochs are shorter.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    settings = task.settings
    filesystem, path = storage
    deaths = 0
    while not task.store.finished():  # a worker may be lost after the result is written
        before = task.store.progress()
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"task": task},
            torch_config=TorchConfig(backend="nccl" if settings.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=settings.num_workers,
                use_gpu=settings.gpus_per_worker > 0,
                resources_per_worker=worker_resources(settings),
            ),
            run_config=RunConfig(
                name=f"fold-{task.fold}-{time.time_ns()}",
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=0),  # retried below, if no worker raised an error
            ),
        )
        try:
            trainer.fit()
            return
        except WorkerGroupError as error:
            failures = [_cause(failure) for failure in error.worker_failures.values()]
            own = [failure for failure in failures if not _is_loss(failure)]
            if own:
                # Errors other than InputError become text, since not every exception can be pickled.
                is_input = isinstance(own[0], InputError)
                raise own[0] if is_input else RuntimeError(f"{type(own[0]).__name__}: {own[0]}") from None
            deaths = deaths + 1 if task.store.progress() == before else 1
            if deaths > WORKER_DEATHS_ALLOWED:
                raise RuntimeError(f"workers died {deaths} times in one epoch: {failures[0]}") from None
            if task.progress is not None:
                task.progress.post.remote(task.fold, "a worker was lost; resuming from the last checkpoint")


def _cause(failure: BaseException) -> BaseException:
    """Return the exception that a worker's code raised, without Ray Train's wrappers."""
    while True:
        inner = getattr(failure, "_base_exc", None) or getattr(failure, "cause", None)
        if not isinstance(inner, BaseException):
            return failure
        failure = inner


def _is_loss(failure: BaseException) -> bool:
    """Return whether a worker failed because its own or another process or node was lost."""
    return (
        isinstance(failure, PeerLostError | RayActorError | WorkerCrashedError)
        or "WorkerHealthCheck" in type(failure).__name__
    )
