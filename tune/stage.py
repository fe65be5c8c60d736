"""Search for boosters' parameters with Ray Tune; train_boosters then trains with the best ones.

The unit of resume is the trial. A finished trial has a file in tune/<booster>/trials and is not run again.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core import logs
from core.errors import InputError
from core.progress import Progress
from core.ray_session import connect
from core.resources import process_request, require_capacity
from core.run import Run, StageResult
from core.settings.boosters import ROUNDS_PARAMETER
from core.stage import Stage, fingerprint
from featurize.store import FeatureStore
from train.boosters.engine import BoosterRecipe, TrainedModel
from train.boosters.fold_files import model_digest
from train.boosters.load import put_data
from train.boosters.sources import read_used_sources, training_inputs
from train.boosters.stages import booster_stage_settings

if TYPE_CHECKING:
    from core.settings.boosters import Booster
    from core.settings.tune import Search
    from core.storage import Folder
    from tune.search import TrialResult
    from votes.records import Records

# Part of the fingerprint: raise it when the same settings search in another way.
VERSION = 1
BEST_FILE = "best.json"
TRIALS_FILE = "trials.csv"


def run_searches(run: Run) -> list[StageResult]:
    """Write tune/<booster> for every search of the settings."""
    if not run.settings.tune:
        logs.info("tune", "nothing to do: the settings have no tune section")
        return []
    inputs = training_inputs(run)  # train_boosters reports on other sources
    records = inputs.records
    results = []
    for search in run.settings.tune:
        booster = next(booster for booster in run.settings.boosters if booster.name == search.booster)
        stage = search_stage(run, booster, search, inputs.fingerprints)
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            connect(run)
            require_capacity(process_request("tune", booster))
            store = FeatureStore.open(run, records)
            data = put_data(run, store, records, booster.features, read_used_sources(run))
            manifest = _SearchRun(run, stage, booster, search).run_trials(data, records)
        best = manifest["metrics"]["best"]
        parameters = ", ".join(f"{name} {value:.4g}" for name, value in best["parameters"].items())
        note = f"best of {manifest['metrics']['trials']} trials {best['log_loss']:.4f}: {parameters}"
        results.append(StageResult(stage.name, cached, manifest, [note]))
    return results


def search_stage(run: Run, booster: Booster, search: Search, inputs: Mapping[str, str]) -> Stage:
    """Return the stage of a search; `inputs` are the fingerprints of the booster's inputs."""
    return Stage(
        f"tune/{booster.name}",
        run.folder / f"tune/{booster.name}",
        settings={
            "version": VERSION,
            "search": search.model_dump(mode="json"),
            "booster": booster_stage_settings(run, booster),
        },
        inputs=inputs,
    )


@dataclasses.dataclass
class _SearchRun:
    """A search that is not finished."""

    run: Run
    stage: Stage
    booster: Booster
    search: Search

    def run_trials(self, data: Any, records: Records) -> dict[str, Any]:  # noqa: ANN401
        """Run the trials that are missing; return the manifest. `data` is a Ray object reference."""
        from tune.search import run_trials
        from tune.trial import SearchJob

        stage, search = self.stage, self.search
        stage.begin()
        finished = self._finished_trials()
        progress = Progress(stage.name, "trials", total=search.trials, done=len(finished))
        if self.booster.checkpoint_every >= self.booster.rounds:
            logs.info(stage.name, "ASHA stops no trial early: it compares them every `checkpoint_every` rounds only")
        trial_stage = _trial_fingerprint(stage)

        def keep_result(result: TrialResult) -> None:
            saved = {"fingerprint": trial_stage, **dataclasses.asdict(result)}
            stage.folder.write_json(_trial_file(result), saved)
            finished.append(result)
            best = best_trial(finished).log_loss
            stopped = f", stopped at round {result.rounds}" if result.stopped else ""
            progress.advance(note=f"trial {result.number}: {result.log_loss:.4f}{stopped}, best {best:.4f}")

        keeps_models = _models_are_final(self.run, self.booster, search)
        work = self.run.folder / f".work/tune-{self.booster.name}"
        work.delete_all()
        try:
            run_trials(
                SearchJob(data, BoosterRecipe(self.booster, self.run.settings.seed, records.classes), search),
                list(finished),
                keep_result,
                work.uri,
                functools.partial(logs.info, stage.name),
                functools.partial(_write_models, stage.folder, trial_stage) if keeps_models else None,
            )
        finally:
            work.delete_all()
        return self._commit(finished, records.rows("train"))

    def _finished_trials(self) -> list[TrialResult]:
        """Return the trials that an interrupted search with the same settings has finished."""
        from tune.search import TrialResult

        folder, trial_stage = self.stage.folder, _trial_fingerprint(self.stage)
        finished: list[TrialResult] = []
        for name in sorted(folder.files()):
            if name.startswith("trials/") and not self.run.force:
                try:
                    saved = folder.read_json(name)
                except ValueError:
                    logs.warning(self.stage.name, f"{folder / name} is corrupt; the trial is run again")
                    continue
                if saved.pop("fingerprint", None) == trial_stage and saved["number"] < self.search.trials:
                    finished.append(TrialResult(**saved))
        return finished

    def _commit(self, finished: Sequence[TrialResult], rows: int) -> dict[str, Any]:
        """Write the best parameters, the table of trials and the manifest; return the manifest."""
        folder, best = self.stage.folder, best_trial(finished)
        folder.write_json(BEST_FILE, {"parameters": best.parameters, "log_loss": best.log_loss, "trial": best.number})
        folder.write_bytes(TRIALS_FILE, trial_table(finished))
        models: set[str] = set()
        if _models_are_final(self.run, self.booster, self.search):
            # train_boosters trains the models that an earlier commit removed, when another trial was the best.
            pairs = _model_names(_trial_fingerprint(self.stage), best.parameters, self.search.folds)
            models = {name for pair in pairs for name in pair} & set(folder.files())
        return self.stage.commit(
            rows={"train": rows},
            metrics={
                "trials": len(finished),
                "best": {"parameters": best.parameters, "log_loss": best.log_loss},
            },
            keep={BEST_FILE, TRIALS_FILE, *map(_trial_file, finished), *models},
            seconds=max(result.at for result in finished),
        )


def best_trial(results: Sequence[TrialResult]) -> TrialResult:
    """Return the trial with the least loss among those that were trained to their end, if there is one.

    A stopped trial may have had a lower loss at its last round. But without early stopping the loss of a trial can rise
    again, and the final model has all rounds.
    """
    return min(results, key=lambda result: (result.stopped, result.log_loss, result.number))


def _models_are_final(run: Run, booster: Booster, search: Search) -> bool:
    """Return whether a trial's models equal the models that train_boosters would train."""
    return search.folds == run.settings.data.folds and booster.num_workers == 1


def _write_models(folder: Folder, trial_stage: str, parameters: dict[str, Any], models: list[TrainedModel]) -> None:
    for (name, info_name), model in zip(_model_names(trial_stage, parameters, len(models)), models, strict=True):
        folder.write_bytes(name, model.content)
        info = {"best_iteration": model.best_iteration, "rounds_trained": model.rounds_trained}
        folder.write_json(info_name, {**info, "digest": model_digest(model.content)})


def _model_names(trial_stage: str, parameters: dict[str, Any], folds: int) -> list[tuple[str, str]]:
    """Return the files of a trial's models by fold: the model, and its rounds and digest.

    `trial_stage` is the fingerprint of all that the trial depends on, its folds included.
    """
    folder = f"models/{fingerprint([trial_stage, parameters])}"
    return [(f"{folder}/fold-{fold}.model", f"{folder}/fold-{fold}.json") for fold in range(folds)]


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The best parameters of a booster's search, and the best trial's models."""

    parameters: dict[str, Any]
    folder: Folder
    model_files: list[tuple[str, str]]  # by fold: the model, and its rounds and digest; empty unless they are final

    def model(self, fold: int) -> TrainedModel | None:
        """Return the best trial's model of a fold; None if the trial left none, or a corrupt one."""
        if not self.model_files:
            return None
        name, info_name = self.model_files[fold]
        try:
            content, info = self.folder.read_bytes(name), self.folder.read_json(info_name)
        except (FileNotFoundError, ValueError):
            return None
        if info.pop("digest") != model_digest(content):
            return None
        return TrainedModel(content=content, from_search=True, **info)

    def corrupt_files(self) -> list[str]:
        """Return the files of models that exist but are corrupt."""
        return [
            str(self.folder / name)
            for fold, (name, _) in enumerate(self.model_files)
            if self.folder.exists(name) and self.model(fold) is None
        ]


def _trial_fingerprint(stage: Stage) -> str:
    """Return the fingerprint of all that a trial depends on: all settings of its search but the number of trials."""
    search = {name: value for name, value in stage.settings["search"].items() if name != "trials"}
    return fingerprint({"settings": {**stage.settings, "search": search}, "inputs": stage.inputs})


def _trial_file(result: TrialResult) -> str:
    return f"trials/{result.number:05d}.json"


def trial_table(results: Sequence[TrialResult]) -> bytes:
    """Return the trials as CSV, one line each in their order, a column for each parameter and each fold."""
    ordered = sorted(results, key=lambda result: result.number)
    parameters = list(dict.fromkeys(name for result in ordered for name in result.parameters))
    folds = [f"fold_{n}" for n in range(len(ordered[0].fold_losses))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = ["rounds_limit" if name == ROUNDS_PARAMETER else name for name in parameters]
    writer.writerow(["trial", "log_loss", *folds, "rounds", "stopped", "seconds", "at", *names])
    for result in ordered:
        values = [result.parameters.get(name, "") for name in parameters]
        row = [result.number, result.log_loss, *result.fold_losses, result.rounds, int(result.stopped)]
        writer.writerow([*row, round(result.seconds, 3), round(result.at, 3), *values])
    return text.getvalue().encode()


def search_result(run: Run, booster: Booster, inputs: Mapping[str, str]) -> SearchResult | None:
    """Return the result of a booster's search; None if the settings have no search for it.

    Raises InputError if no search with these settings is finished. `inputs` are the fingerprints of the booster's
    inputs.
    """
    search = next((search for search in run.settings.tune if search.booster == booster.name), None)
    if search is None:
        return None
    stage = search_stage(run, booster, search, inputs)
    if stage.manifest() is None:
        raise InputError(
            "the search for its parameters is missing, or was run with other settings",
            where=f"boosters.{booster.name}",
            fix="run `tiebreak tune` with the same configuration first, or `tiebreak pipeline`.",
        )
    parameters = stage.folder.read_json(BEST_FILE)["parameters"]
    final = _models_are_final(run, booster, search)
    model_files = _model_names(_trial_fingerprint(stage), parameters, search.folds) if final else []
    return SearchResult(parameters, stage.folder, model_files)


def best_parameters(run: Run, booster: Booster, inputs: Mapping[str, str]) -> Mapping[str, Any] | None:
    """Return the best parameters of a booster's search; see `search_result`."""
    result = search_result(run, booster, inputs)
    return None if result is None else result.parameters
