"""Search for boosters' settings with Ray Tune; train_boosters then trains with the best ones.

The unit of resume is the trial: each leaves a file in tune/<booster>/trials as it ends, and none of them is run again.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.progress import Progress, say
from core.ray_session import connect
from core.resources import processes_request, require_room
from core.run import Run, StageResult
from core.stage import Stage, fingerprint
from featurize.store import FeatureStore
from train.boosters.fold_files import digest
from train.boosters.sources import inputs_of, study_sources, used_sources
from train.boosters.stages import booster_settings, booster_stage_settings, share_data
from votes.records import open_records

if TYPE_CHECKING:
    from core.settings.boosters import Booster
    from core.settings.tune import Search
    from core.storage import Folder
    from train.boosters.data import Fit
    from tune.search import SearchSettings, TrialResult

# Part of the fingerprint: raise it when the same settings search in another way.
VERSION = 1
BEST = "best.json"
TRIALS = "trials.csv"


def run_searches(run: Run) -> list[StageResult]:
    """Make tune/<booster> for every search of the settings."""
    if not run.settings.tune:
        say("tune", "nothing to do: the settings name no tune")
        return []
    records = open_records(run)
    features = run.finished("features", "featurize", records.fingerprint)
    results = []
    study_sources(run, records, features["fingerprint"])  # train_boosters tells of it
    inputs = inputs_of(run, records, features["fingerprint"])
    for wanted in run.settings.tune:
        booster = next(each for each in run.settings.boosters if each.name == wanted.booster)
        stage = search_stage(run, booster, wanted, inputs)
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            connect(run)
            require_room(processes_request("tune", booster))
            store = FeatureStore.open(run, records)
            data = share_data(run, store, records, booster.features, used_sources(run))
            manifest = _search(run, stage, booster, wanted, data, records.rows("train"))
        best = manifest["metrics"]["best"]
        shown = ", ".join(f"{name} {value:.4g}" for name, value in best["parameters"].items())
        note = f"best of {manifest['metrics']['trials']} trials {best['log_loss']:.4f}: {shown}"
        results.append(StageResult(stage.name, cached, manifest, [note]))
    return results


def search_stage(run: Run, booster: Booster, wanted: Search, inputs: Mapping[str, str]) -> Stage:
    """The stage of a search; `inputs` are the fingerprints of what boosters are trained on."""
    return Stage(
        f"tune/{booster.name}",
        run.folder / f"tune/{booster.name}",
        settings={
            "version": VERSION,
            "search": wanted.model_dump(mode="json"),
            "booster": booster_stage_settings(run, booster),
        },
        inputs=inputs,
    )


def _search(run: Run, stage: Stage, booster: Booster, wanted: Search, data: Any, rows: int) -> dict[str, Any]:  # noqa: ANN401
    from tune.search import TrialResult, search

    stage.begin()
    made_by = _trial_fingerprint(stage)
    finished: list[TrialResult] = []
    for name in sorted(stage.folder.files()):
        if name.startswith("trials/") and not run.force:
            try:
                saved = stage.folder.read_json(name)
            except ValueError:
                say(stage.name, f"{stage.folder / name} is damaged; the trial is run again")
                continue
            if saved.pop("fingerprint", None) == made_by and saved["number"] < wanted.trials:
                finished.append(TrialResult(**saved))
    progress = Progress(stage.name, "trials", total=wanted.trials, done=len(finished))
    if booster.checkpoint_every >= booster.rounds:
        say(stage.name, "no trial is stopped before its end: they are looked at every `checkpoint_every` rounds only")

    def keep(result: TrialResult) -> None:
        saved = {"fingerprint": made_by, **dataclasses.asdict(result)}
        stage.folder.write_json(_trial_file(result), saved)
        finished.append(result)
        best = best_of(finished).log_loss
        stopped = f", stopped at round {result.rounds}" if result.stopped else ""
        progress.advance(note=f"trial {result.number}: {result.log_loss:.4f}{stopped}, best {best:.4f}")

    on_wait = functools.partial(say, stage.name)
    work = run.folder / f".work/tune-{booster.name}"
    work.delete_all()
    try:
        search(
            data,
            search_settings(run, booster, wanted),
            list(finished),
            keep,
            work.uri,
            on_wait,
            functools.partial(_write_models, stage.folder, made_by) if _are_final(run, booster, wanted) else None,
        )
    finally:
        work.delete_all()
    best = best_of(finished)
    stage.folder.write_json(BEST, {"parameters": best.parameters, "log_loss": best.log_loss, "trial": best.number})
    stage.folder.write_bytes(TRIALS, trial_table(finished))
    kept: set[str] = set()
    if _are_final(run, booster, wanted):
        # Those that an earlier commit removed, when another trial was the best, are trained by train_boosters.
        there = set(stage.folder.files())
        kept = {name for names in _model_names(made_by, best.parameters, wanted.folds) for name in names} & there
    return stage.commit(
        rows={"train": rows},
        metrics={"trials": len(finished), "best": {"parameters": best.parameters, "log_loss": best.log_loss}},
        keep={BEST, TRIALS, *map(_trial_file, finished), *kept},
        seconds=max(result.at for result in finished),
    )


def best_of(results: Sequence[TrialResult]) -> TrialResult:
    """The trial with the least loss among those that went to their end, if any did.

    One that was stopped may have had less where it was: without early stopping the loss of a trial can rise again, and
    it is that of all rounds which training will have.
    """
    return min(results, key=lambda result: (result.stopped, result.log_loss, result.number))


def _are_final(run: Run, booster: Booster, wanted: Search) -> bool:
    """Whether a trial's models are the very models that train_boosters would train."""
    return wanted.folds == run.settings.data.folds and booster.actors_per_fold == 1


def _write_models(folder: Folder, made_by: str, parameters: dict[str, Any], fits: list[Fit]) -> None:
    for (model, rest), fit in zip(_model_names(made_by, parameters, len(fits)), fits, strict=True):
        folder.write_bytes(model, fit.model)
        about = {"best_iteration": fit.best_iteration, "rounds_trained": fit.rounds_trained}
        folder.write_json(rest, {**about, "digest": digest(fit.model)})


def _model_names(made_by: str, parameters: dict[str, Any], folds: int) -> list[tuple[str, str]]:
    """Files of a trial's models by fold; `made_by` is what the trial depends on, its folds among it."""
    place = f"models/{fingerprint([made_by, parameters])}"
    return [(f"{place}/fold-{fold}.model", f"{place}/fold-{fold}.json") for fold in range(folds)]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found for a booster."""

    parameters: dict[str, Any]
    folder: Folder
    models: list[tuple[str, str]]  # the best trial's files by fold; none unless they are final

    def model(self, fold: int) -> Fit | None:
        """The model that the best trial has left for a fold; None if it has left none, or one that is damaged."""
        from train.boosters.data import Fit

        if not self.models:
            return None
        model, rest = self.models[fold]
        try:
            content, about = self.folder.read_bytes(model), self.folder.read_json(rest)
        except (FileNotFoundError, ValueError):
            return None
        if about.pop("digest") != digest(content):
            return None
        return Fit(model=content, resumed_at=0, **about)

    def damaged(self) -> list[str]:
        """Files of models that are there and are no use."""
        return [
            str(self.folder / model)
            for fold, (model, _) in enumerate(self.models)
            if self.folder.exists(model) and self.model(fold) is None
        ]


def _trial_fingerprint(stage: Stage) -> str:
    """What a trial depends on: all that its search does, but not how many trials there are."""
    search = {name: value for name, value in stage.settings["search"].items() if name != "trials"}
    return fingerprint({"settings": {**stage.settings, "search": search}, "inputs": stage.inputs})


def _trial_file(result: TrialResult) -> str:
    return f"trials/{result.number:05d}.json"


def search_settings(run: Run, booster: Booster, wanted: Search) -> SearchSettings:
    """What tune.search is asked for."""
    from tune.search import SearchSettings
    from tune.space import OURS, PUBLISHED, Dimension

    if isinstance(wanted.space, dict):
        space = {name: Dimension(**each.model_dump()) for name, each in wanted.space.items()}
    else:
        space = dict(PUBLISHED if wanted.space == "published" else OURS[booster.engine])
    return SearchSettings(
        engine=booster.engine,
        base=booster_settings(run, booster),
        space=space,
        trials=wanted.trials,
        sampler=wanted.sampler,
        groups=wanted.folds,
        grace_rounds=wanted.grace_rounds,
        reduction=wanted.reduction,
        seed=run.settings.seed,
    )


def trial_table(results: list[TrialResult]) -> bytes:
    """The trials as CSV, one line each in their order, a column for each parameter and each fold."""
    ordered = sorted(results, key=lambda result: result.number)
    parameters = list(dict.fromkeys(name for result in ordered for name in result.parameters))
    folds = [f"fold_{n}" for n in range(len(ordered[0].fold_losses))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = ["rounds_limit" if name == "rounds" else name for name in parameters]
    writer.writerow(["trial", "log_loss", *folds, "rounds", "stopped", "seconds", "at", *names])
    for each in ordered:
        values = [each.parameters.get(name, "") for name in parameters]
        row = [each.number, each.log_loss, *each.fold_losses, each.rounds, int(each.stopped)]
        writer.writerow([*row, round(each.seconds, 3), round(each.at, 3), *values])
    return text.getvalue().encode()


def found_by_search(run: Run, booster: Booster, inputs: Mapping[str, str]) -> Found | None:
    """What a booster's search found; None if the settings ask for none.

    Raises InputError if the search has not been run for these settings.
    """
    wanted = next((each for each in run.settings.tune if each.booster == booster.name), None)
    if wanted is None:
        return None
    stage = search_stage(run, booster, wanted, inputs)
    if stage.manifest() is None:
        raise InputError(
            "the search for its settings is not there yet, or was made for others",
            where=f"boosters.{booster.name}",
            fix="run `python -m ray_jobs.tune` with the same configuration first, or ray_jobs.pipeline.",
        )
    parameters = stage.folder.read_json(BEST)["parameters"]
    final = _are_final(run, booster, wanted)
    models = _model_names(_trial_fingerprint(stage), parameters, wanted.folds) if final else []
    return Found(parameters, stage.folder, models)
