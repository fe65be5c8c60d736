"""Blend the models' predictions, calibrate the blend, guard degenerate answers, and write the submission.

Every blend is made: weights learnt for a weighted mean (linear), a weighted geometric mean (log) and the better of the
two (learnt), greedy ensemble selection (greedy), equal weights, and the published weights (preset). They are scored by
nested folds: whatever is learnt for a record's blend has not seen its vote.
"""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import InputError
from core.progress import say
from core.ray_session import on_worker
from core.run import Run, StageResult
from core.stage import Stage
from infer.ensemble.analysis import analyse, recipe_of, score_all
from infer.ensemble.blender import Blender
from infer.ensemble.fallbacks import CASES
from infer.ensemble.fit import BLENDS, Training, blend_parts
from infer.ensemble.pools import Floats, predicted_by
from infer.ensemble.record_facts import Answers, read_answers
from metrics.baselines import class_prior
from metrics.scores import log_loss
from votes import predictions
from votes.records import Records, open_records
from votes.schema import PROBABILITIES, SUBMISSION_COLUMNS

# Part of the fingerprint: raise it when the same predictions are blended differently, or other things are written.
VERSION = 3


def make_blend(run: Run) -> list[StageResult]:
    """Make blend/: weights, analysis, the blends' predictions, and a submission if there are test records."""
    records = open_records(run)
    refuse_nothing(run)
    stage = blend_stage(run, records)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("blend", True, manifest, _notes(run, manifest))]

    _tell(run)
    manifest = on_worker(run, _make, run, records, stage)
    return [StageResult("blend", False, manifest, _notes(run, manifest))]


def _notes(run: Run, manifest: Mapping[str, Any]) -> list[str]:
    """What is submitted, how good it is, and what taking length out costs."""
    name, metrics = run.settings.blend.submission, manifest["metrics"]
    verb = "submitted" if "test" in manifest["rows"] else "chosen"
    told = [
        f"{name} ({metrics['pools'][name]} pool) is {verb}: out-of-fold log loss {metrics['oof_log_loss'][name]:.4f}"
    ]
    gained = metrics["analysis"]["over_class_prior"]
    low, high = gained["gain_ci95"]
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
    prior = f"{verdict} the class prior's {metrics['class_prior']:.4f}"
    told.append(f"{prior}: {gained['gain']:+.4f} gained ({low:+.4f} to {high:+.4f})")
    others = ", ".join(f"{other} {each:.4f}" for other, each in metrics["oof_log_loss"].items() if other != name)
    told.append(f"the other blends: {others}")
    debias = metrics["analysis"]["length_debias"]
    if debias is not None:
        low, high = debias["cost_ci95"]
        told.append(f"taking length out costs {debias['cost']:+.4f} ({low:+.4f} to {high:+.4f})")
    if "test" not in manifest["rows"]:
        told.append("no submission, since data.test gives no records to score")
    return told


def _make(run: Run, records: Records, stage: Stage) -> dict[str, Any]:
    """Make the blends and write them; returns the manifest."""
    started = time.monotonic()
    settings, models = run.settings.blend, run.settings.blended
    by_split = {split: read_models(run, records, models, split) for split in records.splits}
    answers = read_answers(records, records.splits)
    data = _training(records, models, by_split["train"], answers["train"])
    wanted = {name: recipe_of(settings, name) for name in BLENDS if name != "preset" or preset_of(run) is not None}
    scored = score_all(data, wanted, settings.submission)
    folds = records.labels_and_folds()[1]
    prior = class_prior(data.labels, folds)
    analysis = analyse(scored, data, prior, seed=run.settings.seed)
    for guard in analysis["guards"]:
        if "test" in answers:
            guard["test_records"] = int((answers["test"].cases == CASES.index(guard["case"])).sum())

    stage.begin()
    blends = {name: found.nested.predictions for name, found in scored.blends.items()}
    losses = {name: log_loss(values, data.labels) for name, values in blends.items()}
    blenders = {name: found.fitted.blender for name, found in scored.blends.items()}
    weights = {name: dict(zip(models, made.weights, strict=True)) for name, made in blenders.items()}
    metrics = {
        "oof_log_loss": losses,
        "weights": weights,
        "pools": {name: each.pool for name, each in blenders.items()},
        "class_prior": log_loss(prior, data.labels),
    }
    blender = blenders[settings.submission].to_json()
    stage.folder.write_json("weights.json", {"submission": settings.submission, **metrics, "blender": blender})
    stage.folder.write_json("analysis.json", analysis)
    written = {"weights.json", "analysis.json"}
    ids = records.read("train", ["id"])["id"]
    for name, values in blends.items():
        file = f"train-{name}.parquet"
        stage.folder.write_table(file, predictions.table(ids, values, folds), stage.fingerprint)
        written.add(file)
    if "test" in records.splits:
        written |= _write_test(run, stage, records, by_split["test"], answers["test"])
    rows = {split: records.rows(split) for split in records.splits}
    seconds = time.monotonic() - started
    return stage.commit(rows=rows, metrics={**metrics, "analysis": analysis}, keep=written, seconds=seconds)


def blend_stage(run: Run, records: Records) -> Stage:
    """The stage of blend/. Raises InputError naming a model without finished predictions."""
    models = run.settings.blended
    return Stage(
        "blend",
        run.folder / "blend",
        settings={"version": VERSION, **run.settings.blend.model_dump(mode="json"), "models": models},
        inputs={"records": records.fingerprint, **predictions.model_fingerprints(run, records, models)},
    )


def _write_test(run: Run, stage: Stage, records: Records, of_models: Floats, answers: Answers) -> set[str]:
    """Blend the test records as `weights.json` says, write the results, and return the files' names."""
    submitted = write_blended(stage, records, load_blender(run), of_models, answers)
    ids = records.read("test", ["id"])["id"]
    stage.folder.write_table("test.parquet", predictions.table(ids, submitted), stage.fingerprint)
    return {"test.parquet", "predictions.parquet", "submission.csv"}


def write_blended(stage: Stage, records: Records, blender: Blender, of_models: Floats, answers: Answers) -> Floats:
    """Write predictions.parquet and submission.csv of the test records, and return the blend (n, 3) of the models."""
    blended = blender.predict(of_models, answers.cases, answers.differences)
    beside = _beside(records.read("test", ["id"])["id"], blender.models, of_models, blended)
    stage.folder.write_table("predictions.parquet", beside, stage.fingerprint)
    stage.folder.write_bytes("submission.csv", submission(records, blended))
    return blended


def load_blender(run: Run) -> Blender:
    """What a run blends new records with. Raises FileNotFoundError if there is no blend."""
    return Blender.from_json((run.folder / "blend").read_json("weights.json")["blender"])


def refuse_nothing(run: Run) -> None:
    """Raise InputError if the settings name no model that can be blended."""
    if not run.settings.blended:
        raise InputError(
            "no model to blend that predicts every fold",
            where="boosters, encoders, llms",
            fix="name at least one model without `folds` in the settings.",
        )


def _tell(run: Run) -> None:
    """Say which models are left out, what the preset does not cover, and what scores cannot show."""
    for name, some in run.settings.partial.items():
        say("blend", f"{name} predicts folds {', '.join(map(str, some))} only and is left out")
    came = run.settings.came_trained
    if came:
        say("blend", f"whether {', '.join(came)} saw these votes in training is not known; if so, no score is honest")
    preset = preset_of(run)
    if run.settings.blend.submission != "preset" or preset is None:
        return
    if preset["absent"]:
        say("blend", f"preset weights rescaled over the models present; not in this run: {', '.join(preset['absent'])}")
    if preset["unnamed"]:
        say("blend", f"the preset gives no weight to {', '.join(preset['unnamed'])}")


def preset_of(run: Run) -> dict[str, list[str]] | None:
    """Models of the preset that are not in this run, and models that it does not name; None if it names none here."""
    preset, models = run.settings.blend.preset, run.settings.blended
    if not any(preset.get(model, 0) > 0 for model in models):
        return None
    return {
        "absent": sorted(name for name in preset if name not in models),
        "unnamed": [model for model in models if model not in preset],
    }


def read_models(run: Run, records: Records, models: Sequence[str], split: str) -> Floats:
    """Predictions (models, n, 3). Raises InputError naming records that no model predicts."""
    found = np.stack([predictions.read_predictions(run, records, model, split) for model in models])
    lost = ~predicted_by(found).any(axis=0)
    if lost.any():
        ids = records.read(split, ["id"])["id"].filter(pa.array(lost)).to_pylist()
        raise InputError(
            f"no model predicts {len(ids)} {split} records: {', '.join(ids[:5])}{' and more' if len(ids) > 5 else ''}",
            where="blend.models",
            fix="add a model that predicts them, such as a booster, or take them out of the input.",
        )
    return found


def _training(records: Records, models: list[str], out_of_fold: Floats, answers: Answers) -> Training:
    table = records.read("train", ["label", "fold", "group"])
    labels, folds, groups = (table[name].to_numpy() for name in ("label", "fold", "group"))
    parts = blend_parts(folds, groups)
    return Training(tuple(models), out_of_fold, labels, parts, groups, answers.cases, answers.differences)


def _beside(ids: pa.ChunkedArray, models: Sequence[str], of_models: Floats, blended: Floats) -> pa.Table:
    """The probabilities of every model and of the blend, side by side; null where a model lacks a record."""
    named = {**dict(zip(models, of_models, strict=True)), "blend": blended}
    return pa.table(
        {
            "id": ids,
            **{
                f"{name}_{column}": pa.array(values[:, n], from_pandas=True)
                for name, values in named.items()
                for n, column in enumerate(PROBABILITIES)
            },
        }
    )


def submission(records: Records, probabilities: Floats) -> bytes:
    """The Kaggle file: id and the three probabilities, one line per test record in input order.

    Raises RuntimeError if the probabilities are not what the file must hold.
    """
    ids = records.read("test", ["id"])["id"]
    inside = (probabilities > 0) & (probabilities < 1)
    if probabilities.shape != (len(ids), 3) or not inside.all() or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-9:
        raise RuntimeError("the blend gave numbers that are no probabilities")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUBMISSION_COLUMNS)
    writer.writerows([record_id, *row] for record_id, row in zip(ids.to_pylist(), probabilities.tolist(), strict=True))
    return text.getvalue().encode()
