"""Train boosters on the features, many folds at a time.

The unit of resume is the fold. Its worker writes model and predictions to models/<name>/fold-<k>, then a manifest. A
fold with a manifest is not trained again.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from core import logs
from core.progress import Progress
from core.ray_session import connect
from core.resources import Request, can_scale_up, fold_request, require_capacity, resource_seconds
from core.run import Run, StageResult
from core.stage import MANIFEST, Stage
from featurize.store import FeatureStore
from train.boosters.fold_files import (
    IMPORTANCE_FILE,
    average_position_effects,
    booster_fold_stage,
    commit_fold,
    gather_folds,
)
from train.boosters.load import put_data
from train.boosters.sources import TrainingInputs, read_used_sources
from train.boosters.stages import booster_stages

if TYPE_CHECKING:
    from core.settings.boosters import Booster
    from train.boosters.engine import TrainedModel
    from votes.records import Records


class SearchedModels(Protocol):
    """The result of a booster's parameter search; see tune.stage.SearchResult."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The best parameters."""

    def model(self, fold: int) -> TrainedModel | None:
        """Return the best trial's model of a fold, if it may be used as it is."""

    def corrupt_files(self) -> list[str]:
        """Return files of the best trial's models that cannot be used."""


def train_models(run: Run, inputs: TrainingInputs, searched: Mapping[str, SearchedModels | None]) -> list[StageResult]:
    """Write models/<name> and predictions/<name> for every booster of the settings.

    `searched` returns the search result of a booster, or None if the settings have no search for it.
    """
    records = inputs.records
    store = FeatureStore.open(run, records)
    results: dict[str, StageResult] = {}
    trainings: list[_BoosterTraining] = []
    for configured in run.settings.boosters:
        search = searched[configured.name]
        if search is not None:
            logs.info(f"train_boosters/{configured.name}", f"with the parameters of its search: {search.parameters}")
        booster = configured.with_parameters(None if search is None else search.parameters)
        models, outputs = booster_stages(run, records, booster, inputs.fingerprints)
        manifest = None if run.force or models.manifest() is None else outputs.manifest()
        if manifest is None:
            trainings.append(_BoosterTraining(run, records, booster, models, outputs, search))
            for file in search.corrupt_files() if search is not None else []:
                logs.warning(models.name, f"{file} is corrupt; its fold is trained again")
        else:
            results[booster.name] = StageResult(models.name, True, manifest)
    for training, manifest in zip(trainings, _train_all(run, store, trainings), strict=True):
        results[training.booster.name] = StageResult(training.models.name, False, manifest)
    study = [] if inputs.study is None else [inputs.study]
    return [*study, *(results[booster.name] for booster in run.settings.boosters)]


def _train_all(run: Run, store: FeatureStore, trainings: Sequence[_BoosterTraining]) -> list[dict[str, Any]]:
    """Train boosters in their order; the next begins once those before it leave CPUs free. Return their manifests.

    The first failure ends all.
    """
    if not trainings:
        return []
    connect(run)
    shared: dict[str, Any] = {}  # references to data by the features it holds
    over = threading.Event()
    futures: list[Future[dict[str, Any]]] = []
    with ThreadPoolExecutor(len(trainings), "booster") as threads:
        try:
            for number, training in enumerate(trainings):
                booster = training.booster
                _wait_for_room(fold_request(booster), futures, trainings[:number])
                require_capacity(fold_request(booster))
                training.begin()
                families = repr(booster.features)
                if training.missing and families not in shared:
                    shared.clear()  # frees data that no booster in training needs
                    shared[families] = put_data(run, store, training.records, booster.features, read_used_sources(run))
                futures.append(threads.submit(training.train, shared.get(families), over.is_set))
            for future in as_completed(futures):
                future.result()
        except BaseException:
            over.set()
            raise
    return [future.result() for future in futures]


def _wait_for_room(
    request: Request, futures: Sequence[Future[dict[str, Any]]], before: Sequence[_BoosterTraining]
) -> None:
    """Wait until the cluster has more CPUs than the earlier boosters can use, or can grow by a fold's request. Raises
    the error of an earlier booster.
    """
    import ray

    from core.placement import POLL_SECONDS

    if can_scale_up(request):
        return
    while sum(training.cpus for training in before) >= ray.cluster_resources().get("CPU", 0):
        if not wait(futures, POLL_SECONDS, FIRST_EXCEPTION).not_done:
            break
        for future in futures:
            if future.done():
                future.result()


@dataclass
class _BoosterTraining:
    """A booster to train, and its progress."""

    run: Run
    records: Records
    booster: Booster
    models: Stage
    outputs: Stage
    search: SearchedModels | None
    missing: Sequence[int] = ()  # folds that are not trained yet
    cpus: int = 0  # that the unfinished folds can use at once
    started: float = 0.0

    @property
    def folds(self) -> list[int]:
        """The folds of the records."""
        return list(range(len(self.records.manifest["metrics"]["fold_rows"])))

    def begin(self) -> None:
        """Mark the booster as in training, and find its folds that are not trained yet."""
        self.started = time.monotonic()
        self.models.begin()
        self.outputs.begin()
        self.missing = [
            fold for fold in self.folds if self.run.force or booster_fold_stage(self.models, fold).manifest() is None
        ]
        self.cpus = len(self.missing) * self.booster.fold_cpus

    def train(self, data: Any, cancelled: Callable[[], bool]) -> dict[str, Any]:  # noqa: ANN401
        """Train the missing folds and combine all folds; return the manifest of the predictions.

        `data` is a Ray object reference, or None if no fold is missing.
        """
        from train.boosters.engine import BoosterRecipe
        from train.boosters.fold_pool import train_folds
        from train.boosters.fold_worker import FoldJob, no_model

        votes = self.records.votes()
        job = FoldJob(
            recipe=BoosterRecipe(self.booster, self.run.settings.seed, self.records.classes),
            data=data,
            commit=functools.partial(commit_fold, models=self.models, engine=self.booster.engine, votes=votes),
            existing_model=no_model if self.search is None else self.search.model,
        )
        progress = Progress(self.models.name, "folds", total=len(self.folds), done=len(self.folds) - len(self.missing))
        on_wait = functools.partial(logs.info, self.models.name)
        for fold, kept in train_folds(job, self.missing, on_wait, cancelled) if self.missing else ():
            progress.advance(note=f"fold {fold}: {kept} rounds")
            self.cpus -= self.booster.fold_cpus
        return self._commit(self._gather(on_wait, cancelled))

    def _gather(self, on_wait: Callable[[str], None], cancelled: Callable[[], bool]) -> dict[str, int]:
        """Combine the folds' files in a worker; return rows by split."""
        import ray

        from core.placement import wait_for_task

        inverse_loss = self.booster.fold_weights == "inverse_loss"
        task = ray.remote(num_cpus=1)(gather_folds)
        gathered = task.remote(self.records, self.models, self.outputs, self.folds, inverse_loss)
        wait_for_task(gathered, "the folds' predictions", on_wait, cancelled)
        rows: dict[str, int] = ray.get(gathered)
        return rows

    def _commit(self, rows: Mapping[str, int]) -> dict[str, Any]:
        """Write the manifests of models and predictions; return the latter."""
        manifests = {fold: booster_fold_stage(self.models, fold).require("train_boosters") for fold in self.folds}
        files = {
            f"fold-{fold}/{name}" for fold, manifest in manifests.items() for name in [*manifest["files"], MANIFEST]
        }
        self.models.commit(
            rows=rows,
            metrics={
                name: {fold: manifest["metrics"][name] for fold, manifest in manifests.items()}
                for name in ("rounds", "log_loss")
            },
            keep={*files, IMPORTANCE_FILE},
            seconds=time.monotonic() - self.started,
        )
        fold_seconds = sum(manifest["seconds"] for manifest in manifests.values())
        positions = [manifest["metrics"].get("position") for manifest in manifests.values()]
        return self.outputs.commit(
            rows=rows,
            metrics={
                **resource_seconds(fold_seconds, self.booster.fold_cpus, 0),
                "position": average_position_effects(positions),
            },
            keep={f"{name}.parquet" for name in rows},
            seconds=time.monotonic() - self.started,
        )
