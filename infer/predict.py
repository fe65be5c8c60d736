"""Predict new pairs with a finished run: with its features, models and blend, none of which change.

All settings but data.test are those that the run was made with. What it made is checked before anything is predicted.
What is predicted goes to predict/<name> of the run, a small run of its own whose name is that of the pairs' file with a
digest of its contents. The unit of resume is the shard.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import InputError
from core.lock import locked
from core.progress import say
from core.ray_session import on_worker
from core.run import Run, StageResult
from core.stage import Stage, fingerprint, read_manifest, require_finished
from infer.ensemble.pools import predicted_by
from infer.ensemble.record_facts import read_answers
from infer.ensemble.stage import blend_stage, load_blender, read_models, write_blended
from infer.finished_models import ready, with_cheaper
from votes import predictions
from votes.ingest import file_digests, find_input_files, ingest_files, records_stage
from votes.readers import ENDINGS
from votes.records import Records, open_records
from votes.schema import LABELS, PROBABILITIES

if TYPE_CHECKING:
    from infer.ensemble.blender import Blender
    from train.boosters.predict import BestParameters

_NAME_BYTES = 8
# Part of the fingerprint: raise it when the same models are blended differently.
VERSION = 1


def predict_new(run: Run, best_parameters: BestParameters) -> list[StageResult]:
    """Make predict/<name>/ with every model's predictions, the blend's, and a submission.

    `best_parameters` returns what a booster's search found.
    """
    location = run.settings.data.test
    if location is None:
        raise InputError("no pairs to predict", where="data.test", fix="give --set data.test=FILE.")
    finished = Run(run.settings)  # whatever is forced, what the run made stays as it is
    records = open_records(finished)
    blended = require_finished(blend_stage(finished, records), "blend")
    files = find_input_files(location, "test")
    blender = load_blender(finished)
    unweighted = [model for model, weight in zip(blender.models, blender.weights, strict=True) if not weight]
    models = [model for model in blender.models if model not in unweighted]
    if not models:  # weights of 0 alone are the uniform prediction, whatever the models say
        models, unweighted = list(blender.models), []
    asked = with_cheaper(run.settings, models)
    made = _made(finished, with_cheaper(run.settings, blender.models))
    predictors = ready(finished, records, asked, best_parameters)

    digests = file_digests("test", files)
    name = _name(location, digests)
    new = Run(run.settings.model_copy(update={"run": (run.folder / f"predict/{name}").uri}), run.force)
    with locked(new.folder, "predict", run.take_over):
        # With the training input among them, the fingerprints of what was fitted on it are those of the run.
        trained_on = {file: digest for file, digest in records.manifest["inputs"].items() if file.startswith("train/")}
        ingested = ingest_files(new, records_stage(new, {**trained_on, **digests}), {"test": location}, {"test": files})
        fresh = Records(new.folder / "records", ingested.manifest)
        results = [ingested, *(result for make in predictors for result in make(new, fresh))]
        if unweighted and not _all_predicted(new, fresh, models):
            say(
                "predict",
                f"some records are predicted by none of {', '.join(models)}, so that the others are asked as well",
            )
            rest = [model for model in with_cheaper(run.settings, unweighted) if model not in models]
            results += [
                result for make in ready(finished, records, rest, best_parameters) for result in make(new, fresh)
            ]
            models, unweighted = list(blender.models), []
        _refuse_changed(finished, new, made, with_cheaper(run.settings, models))
        left_out = _left_out(run, blender, [model for model in unweighted if model not in asked])
        for model, reason in left_out.items():
            say("predict", f"{model} is left out: {reason}")
        weights = dict(zip(blender.models, blender.weights, strict=True))
        used = dataclasses.replace(blender, models=tuple(models), weights=tuple(weights[model] for model in models))
        about = {"name": name, "left_out": left_out}
        return [*results, _blend(new, fresh, used, str(blended["fingerprint"]), about)]


def _made(run: Run, models: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """By its folder, what tells the features and each of the models from the same made anew."""
    found = {}
    for folder in ("features", *(_folder(run, model) for model in models)):
        manifest = read_manifest(run.folder / folder) or {}
        found[folder] = manifest.get("fingerprint"), manifest.get("finished")
    return found


def _folder(run: Run, model: str) -> str:
    """Where a model of the run lies; one that came trained lies elsewhere, and no job makes it anew."""
    trained = {llm.name: llm.finetuned for llm in run.settings.llms if llm.finetuned is not None}
    return f"models/{trained.get(model, model)}"


def _refuse_changed(finished: Run, new: Run, made: Mapping[str, tuple[Any, Any]], models: Sequence[str]) -> None:
    """Raise InputError if what predicted is not what it was at the start, and remove what it predicted.

    Nobody holds the finished run, so another job may have made parts of it anew in the meantime.
    """
    now = _made(finished, models)
    changed = [folder for folder in now if now[folder] != made[folder]]
    if not changed:
        return
    mixed = [model for model in models if "features" in changed or _folder(finished, model) in changed]
    for folder in (*(f"predictions/{model}" for model in mixed), *(["features"] if "features" in changed else [])):
        (new.folder / folder).delete_all()
    raise InputError(
        f"another job has made this anew in the meantime: {', '.join(changed)}",
        where=str(finished.folder),
        fix="run the same line again once that job has ended.",
    )


def _name(location: str, digests: Mapping[str, str]) -> str:
    """A folder's name for the pairs of some files: where they were, without an ending, and what they hold."""
    stem = os.path.basename(location.partition("?")[0].rstrip("/"))
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")
    return f"{stem or 'pairs'}-{fingerprint(dict(digests))[:_NAME_BYTES]}"


def _all_predicted(run: Run, records: Records, models: list[str]) -> bool:
    """Whether each record has the prediction of at least one of the models."""
    found = np.stack([predictions.read_predictions(run, records, model, "test") for model in models])
    return bool(predicted_by(found).any(axis=0).all())


def _left_out(run: Run, blender: Blender, unweighted: list[str]) -> dict[str, str]:
    """The models of the run that have no part in the blend, and why."""
    reasons = dict.fromkeys(run.settings.models, "it is not among the models of the blend")
    for model, folds in run.settings.partial.items():
        reasons[model] = f"it predicts folds {', '.join(map(str, folds))} only"
    reasons |= dict.fromkeys(unweighted, "the blend gives it no weight")
    return {model: why for model, why in reasons.items() if model not in blender.models or model in unweighted}


def _blend(run: Run, records: Records, blender: Blender, blend: str, about: Mapping[str, Any]) -> StageResult:
    """Blend the models' predictions as the finished run's blend of the fingerprint `blend` does."""
    of_models = predictions.model_fingerprints(run, records, blender.models)
    inputs = {"records": records.fingerprint, "blend": blend, **of_models}
    stage = Stage("predict", run.folder, {"version": VERSION}, inputs)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        manifest = on_worker(run, _write, run, records, blender, stage, about)
    return StageResult("predict", cached, manifest, _notes(run, records))


def _write(run: Run, records: Records, blender: Blender, stage: Stage, about: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    values = read_models(run, records, blender.models, "test")
    answers = read_answers(records, ["test"])["test"]
    stage.begin()
    write_blended(stage, records, blender, values, answers)
    return stage.commit({"test": records.rows("test")}, seconds=time.monotonic() - started, extra=about)


def _notes(run: Run, records: Records) -> list[str]:
    """The probabilities of a single record."""
    if records.rows("test") > 1:
        return []
    (row,) = run.folder.read_table("predictions.parquet").to_pylist()
    shares = ", ".join(f"{label} {row[f'blend_{name}']:.4f}" for label, name in zip(LABELS, PROBABILITIES, strict=True))
    return [f"{row['id']}: {shares}"]
