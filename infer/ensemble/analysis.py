"""Score the blends, and what each part adds to the submitted one: blend/analysis.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from infer.ensemble.calibration import compare_methods
from infer.ensemble.fit import (
    BlendInputs,
    BlendName,
    BlendRecipe,
    FittedBlend,
    NestedPredictions,
    fit_blend,
    predict_nested,
    predict_nested_without,
)
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import log_loss, record_log_loss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Doubles, Probabilities

ALL_JUDGES: Final = "all judges"
_LENGTH, _PRIOR = "the influence of length", "the class prior"  # next to the models' names, which hold no space


@dataclass(frozen=True)
class ScoredBlend:
    """A blend as it is submitted, and its predictions for records whose votes it did not see."""

    fitted: FittedBlend
    nested: NestedPredictions


@dataclass(frozen=True)
class ScoredBlends:
    """All blends, and nested predictions of the submitted blend without each model and without length debiasing."""

    submission: BlendName
    blends: dict[BlendName, ScoredBlend]
    without: dict[str, Probabilities]
    with_length: Probabilities | None  # None unless the blend removes the influence of length


def score_blends(training: BlendInputs, recipes: dict[BlendName, BlendRecipe], submission: BlendName) -> ScoredBlends:
    """Fit and score the blends, and the submitted blend without each model, in a Ray task each."""
    import ray

    shared = ray.put(training)
    score, leave_out, nest = (ray.remote(num_cpus=1)(work) for work in (_score, predict_nested_without, predict_nested))
    submitted = recipes[submission]
    blends = {name: score.remote(shared, recipe, name == submission) for name, recipe in recipes.items()}
    parts: dict[str, tuple[str, ...]] = {model: (model,) for model in training.models}
    if len(training.judges) > 1:
        parts[ALL_JUDGES] = training.judges
    without = {name: leave_out.remote(shared, submitted, models) for name, models in parts.items()}
    with_length = None
    if submitted.length_debias:
        with_length = nest.remote(shared, dataclasses.replace(submitted, length_debias=False))
    return ScoredBlends(
        submission,
        dict(zip(blends, ray.get(list(blends.values())), strict=True)),
        dict(zip(without, ray.get(list(without.values())), strict=True)),
        None if with_length is None else ray.get(with_length).blend,
    )


def _score(training: BlendInputs, recipe: BlendRecipe, keep_calibrated: bool) -> ScoredBlend:
    """Fit and score a blend. Drop its predictions under each calibration unless they are analyzed."""
    nested = predict_nested(training, recipe)
    return ScoredBlend(
        fit_blend(training, recipe), nested if keep_calibrated else dataclasses.replace(nested, calibrated={})
    )


def analyze_submission(scored: ScoredBlends, training: BlendInputs, prior: Probabilities, seed: int) -> dict[str, Any]:
    """Return the analysis of the submitted blend, in the format of the file.

    `prior` (m, k) is the out-of-fold class prior, the least that a blend must beat.
    """
    submitted = scored.blends[scored.submission]
    blender, votes = submitted.fitted.blender, training.votes
    losses = record_log_loss(submitted.nested.blend, votes.labels)
    calibrated = {
        method: record_log_loss(values, votes.labels) for method, values in submitted.nested.calibrated.items()
    }
    without = {model: record_log_loss(values, votes.labels) for model, values in scored.without.items()}
    differences = {model: values - losses for model, values in without.items()}
    differences[_PRIOR] = record_log_loss(prior, votes.labels) - losses
    if scored.with_length is not None:
        differences[_LENGTH] = losses - record_log_loss(scored.with_length, votes.labels)
    # One bootstrap for all, so that every interval rests on the same draws of prompts.
    samples = bootstrap_means(np.stack(list(differences.values()), axis=1), votes.groups, votes.weights, seed=seed)
    intervals = {name: list(percentile_interval(samples[:, n])) for n, name in enumerate(differences)}
    return {
        **_verdict_gain(differences, training, seed),
        "in_sample_log_loss": log_loss(
            blender.predict(training.predictions, training.facts), votes.labels, votes.weights
        ),
        "nested_log_loss": float(votes.mean(losses)),
        "over_class_prior": {"gain": float(votes.mean(differences[_PRIOR])), "gain_ci95": intervals[_PRIOR]},
        "without": {
            model: {
                "oof_log_loss": float(votes.mean(values)),
                "gain": float(votes.mean(differences[model])),
                "gain_ci95": intervals[model],
            }
            for model, values in without.items()
        },
        "calibration": {
            "chosen": blender.calibration.method,
            "methods": {
                method: {"oof_log_loss": score.log_loss, "standard_error": score.standard_error}
                for method, score in compare_methods(calibrated, votes).items()
            },
        },
        "length_debias": None
        if blender.length_coefficient is None
        else {
            "coefficient": blender.length_coefficient,
            "cost": float(votes.mean(differences[_LENGTH])),
            "cost_ci95": intervals[_LENGTH],
        },
    }


def _verdict_gain(differences: Mapping[str, Doubles], training: BlendInputs, seed: int) -> dict[str, Any]:
    """Return the gain of verdicts where there are any: what a new pair loses without them. Empty without judges."""
    if not training.judges or not training.judged.any():
        return {}
    gains = differences.get(ALL_JUDGES, differences[training.judges[0]])[training.judged]
    votes = training.votes.take(training.judged)
    samples = bootstrap_means(gains[:, None], votes.groups, votes.weights, seed=seed)
    gain = {"gain": float(votes.mean(gains)), "gain_ci95": list(percentile_interval(samples[:, 0]))}
    return {"verdicts": {"votes": int(training.judged.sum()), **gain}}
