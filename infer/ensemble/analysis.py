"""How good the blends are, and what each part of the submitted one adds: blend/analysis.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer.ensemble.calibration import compare
from infer.ensemble.fit import BlendName, Fitted, Nested, Recipe, Training, fit, nested, nested_without
from metrics.intervals import bootstrap_means, interval
from metrics.scores import log_loss, record_log_loss

if TYPE_CHECKING:
    from core.settings.blend import Blend
    from infer.ensemble.pools import Floats

_LENGTH, _PRIOR = "the influence of length", "the class prior"  # beside the models' names, which hold no space


def recipe_of(settings: Blend, name: BlendName) -> Recipe:
    """What the settings ask of a blend; the preset stays as published."""
    if name == "preset":
        return Recipe(name, "none", preset=settings.preset)
    return Recipe(name, settings.calibration, settings.length_debias)


@dataclass(frozen=True)
class ScoredBlend:
    """A blend as it is submitted, and its predictions for records whose votes it did not see."""

    fitted: Fitted
    nested: Nested


@dataclass(frozen=True)
class Scored:
    """All blends, and what the submitted one predicts, nested, without each model and with the influence of length."""

    submission: BlendName
    recipe: Recipe  # of the submitted one
    blends: dict[BlendName, ScoredBlend]
    without: dict[str, Floats]
    with_length: Floats | None  # None unless length is taken out


def score_all(data: Training, recipes: dict[BlendName, Recipe], submission: BlendName) -> Scored:
    """Fit and score the blends, and the submitted one without each model, in a Ray task each."""
    import ray

    shared = ray.put(data)
    score, leave_out, nest = (ray.remote(num_cpus=1)(work) for work in (_score, nested_without, nested))
    recipe = recipes[submission]
    blends = {name: score.remote(shared, each, name == submission) for name, each in recipes.items()}
    without = {model: leave_out.remote(shared, recipe, model) for model in data.models}
    undone = nest.remote(shared, dataclasses.replace(recipe, length_debias=False)) if recipe.length_debias else None
    return Scored(
        submission,
        recipe,
        dict(zip(blends, ray.get(list(blends.values())), strict=True)),
        dict(zip(without, ray.get(list(without.values())), strict=True)),
        None if undone is None else ray.get(undone).predictions,
    )


def _score(data: Training, recipe: Recipe, analysed: bool) -> ScoredBlend:
    """Fit and score a blend; only one that is analysed keeps its scores under each calibration."""
    found = nested(data, recipe)
    return ScoredBlend(fit(data, recipe), found if analysed else dataclasses.replace(found, calibrated={}))


def analyse(scored: Scored, data: Training, prior: Floats, seed: int) -> dict[str, Any]:
    """The analysis of the submitted blend, in the shape of the file; guards still lack the number of test records.

    `prior` (n, 3) is the out-of-fold class prior, the least that a blend must beat.
    """
    submitted = scored.blends[scored.submission]
    blender = submitted.fitted.blender
    losses = record_log_loss(submitted.nested.predictions, data.labels)
    calibrated = {method: record_log_loss(each, data.labels) for method, each in submitted.nested.calibrated.items()}
    without = {model: record_log_loss(each, data.labels) for model, each in scored.without.items()}
    differences = {model: each - losses for model, each in without.items()}
    differences[_PRIOR] = record_log_loss(prior, data.labels) - losses
    if scored.with_length is not None:
        differences[_LENGTH] = losses - record_log_loss(scored.with_length, data.labels)
    # One bootstrap for all, so that every interval rests on the same draws of prompts.
    samples = bootstrap_means(np.stack(list(differences.values()), axis=1), data.groups, seed=seed)
    intervals = {name: list(interval(samples[:, n])) for n, name in enumerate(differences)}
    in_sample = blender.predict(data.predictions, data.cases, data.differences)
    return {
        "in_sample_log_loss": log_loss(in_sample, data.labels),
        "nested_log_loss": float(losses.mean()),
        "over_class_prior": {"gain": float(differences[_PRIOR].mean()), "gain_ci95": intervals[_PRIOR]},
        "without": {
            model: {
                "oof_log_loss": float(each.mean()),
                "gain": float(differences[model].mean()),
                "gain_ci95": intervals[model],
            }
            for model, each in without.items()
        },
        "calibration": {
            "chosen": blender.calibration.method,
            "methods": {
                method: {"oof_log_loss": score.log_loss, "standard_error": score.standard_error}
                for method, score in compare(calibrated, data.groups).items()
            },
        },
        "guards": [
            {
                "case": guard.case,
                "train_records": guard.records,
                "test_records": 0,
                "vote_shares": list(guard.vote_shares),
                "prior": list(guard.prior),
                "probabilities": list(guard.probabilities),
                "applied": guard.applied,
                "reason": guard.reason,
            }
            for guard in submitted.fitted.guards
        ],
        "length_debias": None
        if blender.length_coefficient is None
        else {
            "coefficient": blender.length_coefficient,
            "cost": float(differences[_LENGTH].mean()),
            "cost_ci95": intervals[_LENGTH],
        },
    }
