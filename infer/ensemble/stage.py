"""The stage of blend/: what it is made from, and what it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from core.errors import InputError
from core.stage import Stage
from infer.ensemble.fit import BLENDS, BlendName, Recipe, Training, blend_parts
from infer.ensemble.pools import predicted_by
from votes import predictions
from votes.arrays import Votes, votes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Probabilities
    from core.run import Run
    from core.settings.schema import Settings
    from infer.ensemble.record_facts import RecordFacts
    from votes.records import Records

# Part of the fingerprint. Raise it when the same predictions are blended differently, or the outputs change.
VERSION = 4
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
    if not run.settings.blended:
        raise InputError(
            "no model to blend that predicts every fold",
            where="boosters, encoders, llms",
            fix="name at least one model without `folds` in the settings.",
        )


def preset_coverage(settings: Settings) -> dict[str, list[str]] | None:
    """Return the preset's models that this run lacks, and the models that it does not name; None if it names none."""
    preset, models = settings.blend.preset, settings.blended
    if not any(preset.get(model, 0) > 0 for model in models):
        return None
    return {
        "absent": sorted(name for name in preset if name not in models),
        "unnamed": [model for model in models if model not in preset],
    }


def recipes_of(settings: Settings) -> dict[BlendName, Recipe]:
    """Return the recipe of each blend. The preset stays as published, and needs a model that it names."""
    blend = settings.blend
    recipes: dict[BlendName, Recipe] = {
        name: Recipe(name, blend.calibration, blend.length_debias) for name in BLENDS if name != "preset"
    }
    if preset_coverage(settings) is not None:
        recipes["preset"] = Recipe("preset", "none", preset=blend.preset)
    return recipes


def read_models(run: Run, records: Records, models: Sequence[str], split: str) -> Probabilities:
    """Return predictions (models, n, 3). Raises InputError with the ids of records that no model predicts."""
    of_models = np.stack([predictions.read_predictions(run, records, model, split) for model in models])
    missing = ~predicted_by(of_models).any(axis=0)
    if missing.any():
        ids = records.read(split, ["id"])["id"].filter(pa.array(missing)).to_pylist()
        shown = f"{', '.join(ids[:_IDS_SHOWN])}{' and more' if len(ids) > _IDS_SHOWN else ''}"
        raise InputError(
            f"no model predicts {len(ids)} {split} records: {shown}",
            where="blend.models",
            fix="add a model that predicts them, such as a booster, or remove them from the input.",
        )
    return of_models


def read_training(run: Run, records: Records, facts: RecordFacts) -> Training:
    """Return the training records with their votes and the out-of-fold predictions of the blended models."""
    models = run.settings.blended
    votes = votes_of(records.read("train", ["label", "fold", "group"]))
    parts = blend_parts(votes.folds, votes.groups)
    of_models = read_models(run, records, models, "train")
    return Training(tuple(models), of_models, Votes(votes.labels, parts, votes.groups), facts)
