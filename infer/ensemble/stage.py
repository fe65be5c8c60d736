"""Define the stage of blend/ and read its inputs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from core.errors import InputError
from core.stage import Stage
from infer.ensemble.fit import BLEND_NAMES, BlendInputs, BlendName, BlendRecipe, nested_parts
from infer.ensemble.pools import prediction_mask
from infer.judges.models import panels_without
from votes import predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Probabilities
    from core.run import Run
    from core.settings.schema import Settings
    from infer.ensemble.record_facts import RecordFacts
    from votes.records import Records

# Part of the fingerprint. Raise it when the same predictions are blended differently, or the outputs change.
VERSION = 5
_IDS_SHOWN = 5


def blend_stage(run: Run, records: Records) -> Stage:
    """Return the stage of blend/. Raises InputError with the name of a model without finished predictions."""
    models = run.settings.blended
    return Stage(
        "blend",
        run.folder / "blend",
        settings={"version": VERSION, **run.settings.blend.model_dump(mode="json"), "models": models},
        inputs={"records": records.fingerprint, **predictions.model_fingerprints(run, records, models)},
    )


def require_blended_models(run: Run) -> None:
    """Raise InputError if the settings name no model that can be blended."""
    if not run.settings.blended and not (run.settings.judges and not run.settings.judge_models):
        raise InputError(
            "no model to blend that predicts every fold",
            where="boosters, encoders, llms",
            fix="name at least one model without `folds` in the settings.",
        )


def preset_coverage(settings: Settings) -> dict[str, list[str]] | None:
    """Return the preset's models missing from the run, and the run's models missing from the preset.

    Return None if it names no model of the run.
    """
    preset, models = settings.blend.preset, settings.blended
    if not any(preset.get(model, 0) > 0 for model in models):
        return None
    return {
        "absent": sorted(name for name in preset if name not in models),
        "unnamed": [model for model in models if model not in preset],
    }


def blend_recipes(settings: Settings) -> dict[BlendName, BlendRecipe]:
    """Return the recipe of each blend. The preset stays as published, and needs a model that it names."""
    blend = settings.blend
    recipes: dict[BlendName, BlendRecipe] = {
        name: BlendRecipe(name, blend.calibration, blend.length_debias) for name in BLEND_NAMES if name != "preset"
    }
    if preset_coverage(settings) is not None:
        recipes["preset"] = BlendRecipe("preset", "none", preset=blend.preset)
    return recipes


def read_models(run: Run, records: Records, models: Sequence[str], split: str) -> Probabilities:
    """Return predictions (models, n, k). Raises InputError with the ids of records that no model predicts."""
    of_models = np.stack([predictions.read_predictions(run, records, model, split) for model in models])
    missing = ~prediction_mask(of_models).any(axis=0)
    if missing.any():
        ids = records.read(split, ["id"])["id"].filter(pa.array(missing)).to_pylist()
        shown = f"{', '.join(ids[:_IDS_SHOWN])}{' and more' if len(ids) > _IDS_SHOWN else ''}"
        raise InputError(
            f"no model predicts {len(ids)} {split} records: {shown}",
            where="blend.models",
            fix="add a model that predicts them, such as a booster, or remove them from the input.",
        )
    return of_models


def read_training(run: Run, records: Records, facts: RecordFacts) -> BlendInputs:
    """Return the votes on training records with the out-of-fold predictions of the blended models."""
    models = run.settings.blended
    votes = records.votes()
    parts = nested_parts(votes.folds, votes.groups)
    # take keeps the order in memory, and with it the last bits of sums; an index would not.
    of_models = np.take(read_models(run, records, models, "train"), votes.records, axis=1)
    return BlendInputs(
        tuple(models),
        of_models,
        dataclasses.replace(votes, folds=parts),
        facts.take(votes.records),
        judges=tuple(name for name in run.settings.judge_models if name in models),
        panels={name: values[votes.records] for name, values in panels_without(run).items() if name in models},
    )
