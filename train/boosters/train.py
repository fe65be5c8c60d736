"""Train LightGBM, XGBoost and the two-part linear model on the features, many folds at a time.

The unit of resume is the fold: its worker writes model and predictions to models/<name>/fold-<k> and then a manifest,
and a fold with its manifest is not trained again.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.progress import Progress, say
from core.resources import Request, folds_request, may_grow, require_room, resource_seconds
from core.run import Run, StageResult, connect
from core.stage import MANIFEST, Stage, require_finished
from featurize.store import FeatureStore
from train.boosters.fold_files import IMPORTANCE, commit_fold, fold_stage, gather, position_of_folds
from train.boosters.sources import inputs_of, study_sources, used_sources
from train.boosters.stages import booster_settings, booster_stage_settings, share_data
from tune.stage import Found, found_by_search
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.settings.boosters import Booster
    from train.boosters.data import Fit


def train_models(run: Run) -> list[StageResult]:
    """Make models/<name> and predictions/<name> for every booster of the settings."""
    records = open_records(run)
    features = run.finished("features", "featurize", records.fingerprint)
    store = FeatureStore.open(run, records)
    study = study_sources(run, records, features["fingerprint"])
    inputs = inputs_of(run, records, features["fingerprint"])
    # All searches first: one that is missing shall not be noticed when other boosters have been trained.
    searched = [(booster, found_by_search(run, booster, inputs)) for booster in run.settings.boosters]
    results: dict[str, StageResult] = {}
    wanted: list[_Wanted] = []
    for configured, found in searched:
        if found is not None:
            say(f"train_boosters/{configured.name}", f"with the settings that its search found: {found.parameters}")
        booster = with_best(configured, found)
        models, outputs = booster_stages(run, records, booster, inputs)
        manifest = None if run.force or models.manifest() is None else outputs.manifest()
        if manifest is None:
            wanted.append(_Wanted(booster, models, outputs, found))
            for file in found.damaged() if found is not None else []:
                say(models.name, f"{file} is damaged, so that its fold is trained again")
        else:
            results[booster.name] = StageResult(models.name, True, manifest)
    for each, manifest in zip(wanted, _train_all(run, records, store, wanted), strict=True):
        results[each.booster.name] = StageResult(each.models.name, False, manifest)
    return [*([] if study is None else [study]), *(results[booster.name] for booster in run.settings.boosters)]


def with_best(booster: Booster, found: Found | None) -> Booster:
    """A booster with the parameters that its search found, if there was one; as tune.trial.with_parameters does it."""
    if found is None:
        return booster
    from tune.space import ROUNDS

    own = {name: value for name, value in found.parameters.items() if name != ROUNDS}
    rounds = found.parameters.get(ROUNDS, booster.rounds)
    return booster.model_copy(update={"params": {**booster.params, **own}, "rounds": rounds})


def booster_stages(run: Run, records: Records, booster: Booster, inputs: Mapping[str, str]) -> tuple[Stage, Stage]:
    """The stages of models/<name> and predictions/<name>; the booster is as `with_best` gives it."""
    models = Stage(
        f"train_boosters/{booster.name}",
        run.folder / f"models/{booster.name}",
        settings=booster_stage_settings(run, booster),
        inputs=inputs,
    )
    outputs = Stage(
        models.name,
        run.folder / f"predictions/{booster.name}",
        {"fold_weights": booster.fold_weights},
        {"records": records.fingerprint, "models": models.fingerprint},
    )
    return models, outputs


@dataclass
class _Wanted:
    """A booster to train, and how far it is."""

    booster: Booster
    models: Stage
    outputs: Stage
    found: Found | None
    cpus: int = 0  # that its folds left can use at once
    started: float = 0.0


def _train_all(run: Run, records: Records, store: FeatureStore, wanted: Sequence[_Wanted]) -> list[dict[str, Any]]:
    """Train boosters in their order; the next begins once those before it leave CPUs free. Returns their manifests.

    The first failure ends all.
    """
    if not wanted:
        return []
    connect(run)
    shared: dict[str, Any] = {}  # references to data by the features it holds
    over = threading.Event()
    futures: list[Future[dict[str, Any]]] = []
    with ThreadPoolExecutor(len(wanted), "booster") as threads:
        try:
            for number, each in enumerate(wanted):
                _wait_for_room(folds_request(each.booster), futures, wanted[:number])
                booster = each.booster
                require_room(folds_request(booster))
                missing = _begin(run, records, each)
                seen = repr(booster.features)
                if missing and seen not in shared:
                    shared.clear()  # data that no booster in training needs is let go
                    shared[seen] = share_data(run, store, records, booster.features, used_sources(run))
                futures.append(threads.submit(_train, run, records, each, missing, shared.get(seen), over.is_set))
            for future in as_completed(futures):
                future.result()
        except BaseException:
            over.set()
            raise
    return [future.result() for future in futures]


def _wait_for_room(request: Request, futures: Sequence[Future[dict[str, Any]]], before: Sequence[_Wanted]) -> None:
    """Wait until the cluster has more CPUs than the boosters before can use, or may grow by what a fold asks for.

    Raises what one of those before raised.
    """
    import ray

    from core.placement import LOOK_SECONDS

    if may_grow(request):
        return
    while sum(each.cpus for each in before) >= ray.cluster_resources().get("CPU", 0):
        if not wait(futures, LOOK_SECONDS, FIRST_EXCEPTION).not_done:
            break
        for future in futures:
            if future.done():
                future.result()


def _begin(run: Run, records: Records, wanted: _Wanted) -> list[int]:
    """Mark a booster as in training; returns its folds that are not trained yet."""
    wanted.started = time.monotonic()
    wanted.models.begin()
    wanted.outputs.begin()
    folds = range(len(records.manifest["metrics"]["fold_rows"]))
    missing = [fold for fold in folds if run.force or fold_stage(wanted.models, fold).manifest() is None]
    wanted.cpus = len(missing) * wanted.booster.cpus_per_fold * wanted.booster.actors_per_fold
    return missing


def _train(
    run: Run,
    records: Records,
    wanted: _Wanted,
    missing: Sequence[int],
    data: Any,  # noqa: ANN401 - a Ray object reference; None if nothing is missing
    cancelled: Callable[[], bool],
) -> dict[str, Any]:
    """Train the missing folds of a booster, and put its folds together; returns the manifest of its predictions."""
    import ray

    from core.placement import wait_for
    from train.boosters.fold_pool import train_folds

    booster, models, outputs, found = wanted.booster, wanted.models, wanted.outputs, wanted.found
    folds = list(range(len(records.manifest["metrics"]["fold_rows"])))
    labels, _ = records.labels_and_folds()
    commit = functools.partial(commit_fold, models=models, engine=booster.engine, labels=labels)
    progress = Progress(models.name, "folds", total=len(folds), done=len(folds) - len(missing))
    asked = booster_settings(run, booster)
    on_wait = functools.partial(say, models.name)
    ready = _no_model if found is None else found.model
    trained = train_folds(booster.engine, data, missing, asked, commit, on_wait, ready, cancelled) if missing else ()
    for fold, kept in trained:
        progress.advance(note=f"fold {fold}: {kept} rounds")
        wanted.cpus -= booster.cpus_per_fold * booster.actors_per_fold
    gathered = ray.remote(num_cpus=1)(gather).remote(
        records, models, outputs, folds, booster.fold_weights == "inverse_loss"
    )
    wait_for(gathered, "the folds' predictions", on_wait, cancelled)
    rows = ray.get(gathered)
    manifests = {fold: require_finished(fold_stage(models, fold), "train_boosters") for fold in folds}
    files = {f"fold-{fold}/{name}" for fold, manifest in manifests.items() for name in [*manifest["files"], MANIFEST]}
    models.commit(
        rows=rows,
        metrics={
            name: {fold: manifest["metrics"][name] for fold, manifest in manifests.items()}
            for name in ("rounds", "log_loss")
        },
        keep={*files, IMPORTANCE},
        seconds=time.monotonic() - wanted.started,
    )
    of_folds = sum(manifest["seconds"] for manifest in manifests.values())
    return outputs.commit(
        rows=rows,
        metrics={
            **resource_seconds(of_folds, booster.cpus_per_fold * booster.actors_per_fold, 0),
            "position": position_of_folds([manifest["metrics"].get("position") for manifest in manifests.values()]),
        },
        keep={f"{name}.parquet" for name in rows},
        seconds=time.monotonic() - wanted.started,
    )


def _no_model(fold: int) -> Fit | None:
    return None
