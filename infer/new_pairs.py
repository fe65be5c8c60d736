"""Blend predictions for new pairs."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import numpy as np

from core import logs
from core.errors import InputError
from core.ray_session import run_on_worker
from core.run import StageResult
from core.settings.features import JUDGES
from core.stage import Stage, fingerprint
from infer.ensemble.outputs import write_test_predictions
from infer.ensemble.pools import prediction_mask
from infer.ensemble.record_facts import read_record_facts
from infer.ensemble.stage import read_models
from votes import predictions
from votes.readers.files import ENDINGS
from votes.schema import LABELS, PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from core.run import Run
    from core.settings.schema import Settings
    from infer.ensemble.blender import Blender
    from votes.records import Records

# Part of the fingerprint. Raise it when the same models are blended differently.
VERSION = 2
_DIGEST_CHARACTERS = 8


def require_location(settings: Settings) -> str:
    """Return the location of the pairs. Raises InputError if the settings name none."""
    if settings.data.test is None:
        raise InputError("no pairs to predict", where="data.test", fix="give --set data.test=FILE.")
    return settings.data.test


def prediction_name(
    location: str, digests: Mapping[str, str], settings: Settings, tables: Mapping[str, Sequence[Any]]
) -> str:
    """Return the folder name for the pairs of some files: the location's stem and a digest of the contents.

    The digest is also one of the `tables` by setting, where they are not those of the finished run's settings.
    """
    other = {
        name: fingerprint([table.model_dump(mode="json") for table in given])
        for name, given in tables.items()
        if list(given) != getattr(settings, name)
    }
    stem = os.path.basename(location.partition("?")[0].rstrip("/"))
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")
    return f"{stem or 'pairs'}-{fingerprint({**digests, **other})[:_DIGEST_CHARACTERS]}"


def training_digests(records: Records) -> dict[str, str]:
    """Return the digests of the training input, which are part of the fingerprints of what was fitted on it."""
    return {file: digest for file, digest in records.manifest["inputs"].items() if file.startswith("train/")}


def weighted_models(blender: Blender) -> list[str]:
    """Return the models with a weight in the blend, or in the one without judges, and all judges if there is one.

    Judges without a weight tell which blend a pair gets. If no model has one, all models count alike.
    """
    weighted = [model for model, weight in zip(blender.models, blender.weights, strict=True) if weight]
    if blender.without_judges is not None:
        others = weighted_models(blender.without_judges)
        kept = {*others, *blender.judges, *(weighted or blender.models)}
        return [model for model in blender.models if model in kept]
    return weighted or list(blender.models)


def every_record_predicted(run: Run, records: Records, models: Sequence[str]) -> bool:
    """Return whether at least one of the models predicts each record."""
    of_models = np.stack([predictions.read_predictions(run, records, model, "test") for model in models])
    return bool(prediction_mask(of_models).any(axis=0).all())


def log_excluded_models(settings: Settings, blender: Blender, skipped: Sequence[str]) -> dict[str, str]:
    """Log and return the models left out of the blend, with reasons; `skipped` models have no weight."""
    reasons = dict.fromkeys(settings.models, "it is not among the models of the blend")
    for model, folds in settings.partial.items():
        reasons[model] = f"it predicts only folds {', '.join(map(str, folds))}"
    reasons |= dict.fromkeys(skipped, "its weight in the blend is zero")
    left_out = {model: why for model, why in reasons.items() if model not in blender.models or model in skipped}
    for model, reason in left_out.items():
        logs.info("predict", f"{model} is left out: {reason}")
    return left_out


def judges_left_out(run: Run, records: Records, blender: Blender, analysis: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how many new pairs have no verdict, and what the log loss without judges costs; None if all have one.

    `blender` has the models that predict the new pairs. The cost is that on training records, out-of-fold. Boosters
    with the family `judges` have seen verdicts there. So it is not known what they lose without them.
    """
    if not blender.judges:
        return None
    of_judges = [predictions.read_predictions(run, records, judge, "test") for judge in blender.judges]
    pairs = int((~prediction_mask(np.stack(of_judges)).any(axis=0)).sum())
    if not pairs:
        return None
    score = analysis["verdicts"]
    settings = run.settings
    seen_by = [
        booster.name
        for booster in settings.boosters
        if booster.name in blender.models and JUDGES in (booster.features or settings.featurize.names)
    ]
    return {"pairs": pairs, "cost": score["gain"], "cost_ci95": score["gain_ci95"], "seen_by": seen_by}


def blend_new_pairs(run: Run, records: Records, blender: Blender, blend: str, extra: Mapping[str, Any]) -> StageResult:
    """Blend the models' predictions of new pairs; `blend` is the fingerprint of the finished run's blend.

    `extra` goes into the manifest.
    """
    of_models = predictions.model_fingerprints(run, records, blender.models)
    inputs = {"records": records.fingerprint, "blend": blend, **of_models}
    stage = Stage("predict", run.folder, {"version": VERSION}, inputs)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        manifest = run_on_worker(run, _write_blend, run, records, blender, stage, extra)
    return StageResult("predict", cached, manifest, [*_notes(run, records), *_judge_notes(manifest)])


def _write_blend(
    run: Run, records: Records, blender: Blender, stage: Stage, extra: Mapping[str, Any]
) -> dict[str, Any]:
    started = time.monotonic()
    of_models = read_models(run, records, blender.models, "test")
    facts = read_record_facts(records, ["test"])["test"]
    stage.begin()
    write_test_predictions(stage, records, blender, of_models, facts, run.settings.blend.submission_format)
    return stage.commit({"test": records.rows("test")}, seconds=time.monotonic() - started, extra=extra)


def _notes(run: Run, records: Records) -> list[str]:
    """Return the probabilities of a single record as a line; nothing for more records."""
    if records.rows("test") > 1:
        return []
    (row,) = run.folder.read_table("predictions.parquet").to_pylist()
    named = zip(LABELS, PROBABILITIES[: records.classes], strict=False)
    shares = ", ".join(f"{label} {row[f'blend_{name}']:.4f}" for label, name in named)
    return [f"{row['id']}: {shares}"]


def _judge_notes(manifest: Mapping[str, Any]) -> list[str]:
    """Return how many pairs have no verdict, and what that costs."""
    left_out = manifest.get("without_judges")
    if left_out is None:
        return []
    low, high = left_out["cost_ci95"]
    cost = f"costs {left_out['cost']:+.4f} of log loss ({low:+.4f} to {high:+.4f}) in training"
    if left_out["seen_by"]:
        cost = f"has an unknown cost, since {', '.join(left_out['seen_by'])} learnt from verdicts"
    return [
        f"{left_out['pairs']:,} of {manifest['rows']['test']:,} pairs have no verdict: the blend without judges "
        f"predicts them, which {cost}"
    ]
