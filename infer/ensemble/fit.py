"""Fit a blend, and score it with nested folds.

`fit_blend` learns a blend from out-of-fold predictions: weights, pool, calibration and fallbacks. Calibration and
fallbacks are fitted on predictions that were pooled with the weights of other parts. `predict_nested` scores the blend:
it blends each part of the records by what `fit_blend` learns on the other parts. As in all stacking, the models behind
the other parts' predictions did see the part's votes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

import numpy as np

from core.settings.schema import PANEL
from infer.ensemble.blender import Blender
from infer.ensemble.calibration import (
    CALIBRATION_METHODS,
    CalibrationMethod,
    choose_method,
    compare_methods,
    cross_calibrate,
    fit_calibration,
)
from infer.ensemble.fallbacks import Fallback, fit_fallbacks
from infer.ensemble.length_debias import fit_length_slope
from infer.ensemble.pools import linear_pool, log_pool, pool_predictions, prediction_mask, silence_judges
from infer.ensemble.weights import (
    drop_idle_models,
    greedy_weights,
    learn_linear_weights,
    learn_log_weights,
    preset_weights,
)
from metrics.baselines import class_prior_baseline
from metrics.scores import log_loss, record_log_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.arrays import Doubles, Folds, Groups, Mask, Probabilities
    from infer.ensemble.pools import PoolName
    from infer.ensemble.record_facts import RecordFacts
    from infer.ensemble.weights import LearnWeights
    from votes.arrays import Votes

BlendName = Literal["learned", "linear", "log", "greedy", "equal", "preset"]
BLEND_NAMES: Final[tuple[BlendName, ...]] = get_args(BlendName)  # in the order of the report

_LEARN: Final[Mapping[BlendName, LearnWeights]] = {
    "linear": functools.partial(drop_idle_models, learn_linear_weights, linear_pool),
    "log": functools.partial(drop_idle_models, learn_log_weights, log_pool),
    "greedy": greedy_weights,
}
# A tenth or a fifth of the records is held out at a time. With many records, weights learned on four fifths are as
# good and take a quarter of the time.
_PARTS, _PARTS_OF_MANY, _MANY = 10, 5, 10_000
# On the 13 prompts of LLMFAO a vector or isotonic calibration was chosen for single parts, and cost 0.018 nats.
_FEWEST_PROMPTS: Final = 20
# On 50 votes with verdicts, weights of these alone were worse than weights of all 1,000 votes.
_FEWEST_JUDGED: Final = 200


@dataclass(frozen=True)
class BlendRecipe:
    """The kind of blend to fit."""

    blend: BlendName = "learned"  # the better of linear and log
    calibration: CalibrationMethod | Literal["auto"] = "auto"
    length_debias: bool = False
    preset: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class BlendInputs:
    """Votes to fit a blend on, with out-of-fold predictions and facts. Rows that a model lacks are nan."""

    models: tuple[str, ...]
    predictions: Probabilities  # (models, n, k), a row for each row of the votes
    votes: Votes  # its folds are the parts of `nested_parts`
    facts: RecordFacts
    judges: tuple[str, ...] = ()  # models that predict from judges' verdicts, which new pairs may lack
    panels: Mapping[str, Probabilities] = dataclasses.field(default_factory=dict)  # (n, k) of the panel without a judge

    def take(self, rows: Mask) -> BlendInputs:
        """Return the records of a mask (n,)."""
        return dataclasses.replace(
            self,
            predictions=self.predictions[:, rows],
            votes=self.votes.take(rows),
            facts=self.facts.take(rows),
            panels={judge: values[rows] for judge, values in self.panels.items()},
        )

    @property
    def judged(self) -> Mask:
        """Whether any judge gave a verdict on the record of each row (n,)."""
        return np.asarray(prediction_mask(self.only(self.judges).predictions).any(axis=0))

    def with_silent_judges(self) -> BlendInputs:
        """Return the same with judges that have no opinion on what they did not judge; see `silence_judges`."""
        return dataclasses.replace(self, predictions=silence_judges(self.predictions, self.models, self.judges))

    def only(self, models: tuple[str, ...]) -> BlendInputs:
        """Return the same records with the predictions of some models."""
        predictions = self.predictions[[self.models.index(name) for name in models]]
        judges = tuple(name for name in self.judges if name in models)
        return dataclasses.replace(self, models=models, predictions=predictions, judges=judges)

    def without(self, left_out: Collection[str]) -> BlendInputs:
        """Return the same records without some models; the panel does without a judge among them, too."""
        models = tuple(name for name in self.models if name not in left_out)
        predictions = self.predictions
        for judge in self.panels.keys() & {*left_out} if PANEL in models else ():
            predictions = predictions.copy()
            predictions[self.models.index(PANEL)] = self.panels[judge]
        return dataclasses.replace(self, predictions=predictions).only(models)


def nested_parts(folds: Folds, groups: Groups) -> Folds:
    """Return the parts (n,) to hold out together, from the records' folds. Prompts stay whole.

    Folds are joined into ten parts, or into five if there are many records. Fewer than five folds are divided by
    prompt, so that fitting within the other parts can hold out parts, too.
    """
    _, fold_of = np.unique(folds, return_inverse=True)
    count = int(fold_of.max()) + 1
    most = _PARTS if len(folds) <= _MANY else _PARTS_OF_MANY
    pieces = -(-5 // count) if count < 5 else 1
    return (fold_of % most + count * (groups % pieces)).astype(np.int16)


@dataclass(frozen=True)
class CrossFittedPool:
    """Weights, and predictions that are pooled with weights learned without the records' own part."""

    pool: PoolName
    weights: Doubles
    out_of_fold: Probabilities  # (n, k)


@dataclass(frozen=True)
class FittedBlend:
    """A blender, and the estimate for each case of degenerate answers."""

    blender: Blender
    fallbacks: list[Fallback]


@dataclass(frozen=True)
class NestedPredictions:
    """Predictions (n, k) that never saw their votes: of the blend, and of its pool with each calibration."""

    blend: Probabilities
    calibrated: dict[CalibrationMethod, Probabilities]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Limit BLAS to one thread. SciPy's optimizers use tiny matrices, and idle BLAS threads spin."""
    import scipy.optimize  # noqa: F401 - only loaded libraries can be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def fit_blend(training: BlendInputs, recipe: BlendRecipe) -> FittedBlend:
    """Fit a blend. Raises ValueError if no model predicts a record, or if a preset names none of the models."""
    with _one_thread():
        return _fit(training, recipe).fitted


class _Fit(NamedTuple):
    """A fitted blend, with the pool behind it and the votes that it is fitted to."""

    fitted: FittedBlend
    pooled: CrossFittedPool
    votes: Votes


def _fit(training: BlendInputs, recipe: BlendRecipe) -> _Fit:
    """Fit a blend; next to judges, one without them, for records on which no judge gave a verdict.

    Weights that are learned together with judges do not fit records without verdicts.
    The records without verdicts count as well if few have one.
    """
    seen = training
    if training.judges:
        judged = training.judged
        if judged.sum() >= _FEWEST_JUDGED and len(np.unique(training.votes.folds[judged])) > 1:
            seen = training.take(judged)
        seen = seen.with_silent_judges()
    pooled = _fit_pool(seen, recipe)
    fitted = _fit_after_pool(seen, recipe, pooled)
    others = tuple(name for name in training.models if name not in training.judges)
    without = None
    if training.judges and others and (recipe.blend != "preset" or any(recipe.preset.get(name, 0) for name in others)):
        rest = training.only(others)
        rest = rest.take(np.asarray(prediction_mask(rest.predictions).any(axis=0)))
        if len(np.unique(rest.votes.folds)) > 1:
            without = _fit_after_pool(rest, recipe, _fit_pool(rest, recipe)).blender
    blender = dataclasses.replace(fitted.blender, judges=training.judges, without_judges=without)
    fitted = dataclasses.replace(fitted, blender=blender)
    return _Fit(fitted, pooled, seen.votes)


def _fit_pool(training: BlendInputs, recipe: BlendRecipe) -> CrossFittedPool:
    """Learn the weights. Of two pools take the one with the lower loss out-of-fold."""
    names: tuple[BlendName, ...] = ("linear", "log") if recipe.blend == "learned" else (recipe.blend,)
    candidates = [_cross_pool(training, name, recipe.preset) for name in names]
    votes = training.votes
    return min(candidates, key=lambda pooled: log_loss(pooled.out_of_fold, votes.labels, votes.weights))


def _cross_pool(training: BlendInputs, name: BlendName, preset: Mapping[str, float]) -> CrossFittedPool:
    pool: PoolName = "log" if name == "log" else "linear"
    predictions, votes = training.predictions, training.votes
    if name in ("equal", "preset"):
        weights = preset_weights(preset if name == "preset" else dict.fromkeys(training.models, 1.0), training.models)
        return CrossFittedPool(pool, weights, pool_predictions(pool, predictions, weights))
    learn = _LEARN[name]
    pooled = np.empty(predictions.shape[1:])
    for part in np.unique(votes.folds):
        held_out = votes.folds == part
        weights = learn(predictions[:, ~held_out], votes.take(~held_out))
        pooled[held_out] = pool_predictions(pool, predictions[:, held_out], weights)
    return CrossFittedPool(pool, learn(predictions, votes), pooled)


def _fit_after_pool(training: BlendInputs, recipe: BlendRecipe, pooled: CrossFittedPool) -> FittedBlend:
    """Fit calibration, length and fallbacks. The preset gets none of them: it stays as published."""
    blender = Blender(training.models, pooled.pool, tuple(pooled.weights.tolist()))
    votes, facts = training.votes, training.facts
    if recipe.blend == "preset":
        fallbacks = fit_fallbacks(pooled.out_of_fold, votes, facts.cases)
        reason = "the preset stays as published"
        unused = [dataclasses.replace(fallback, applied=False, reason=reason) for fallback in fallbacks]
        return FittedBlend(blender, unused)
    methods = _calibration_methods(votes) if recipe.calibration == "auto" else (recipe.calibration,)
    calibrated = {method: cross_calibrate(method, pooled.out_of_fold, votes) for method in methods}
    losses = {method: record_log_loss(values, votes.labels) for method, values in calibrated.items()}
    chosen = choose_method(compare_methods(losses, votes))
    blended, ordinary = calibrated[chosen], facts.cases == 0
    length = fit_length_slope(blended[ordinary], facts.length_differences[ordinary]) if recipe.length_debias else None
    fallbacks = fit_fallbacks(blended, votes, facts.cases)
    blender = dataclasses.replace(
        blender,
        calibration=fit_calibration(chosen, pooled.out_of_fold, votes),
        length_coefficient=length,
        fallbacks={fallback.case: fallback.probabilities for fallback in fallbacks if fallback.applied},
    )
    return FittedBlend(blender, fallbacks)


def _calibration_methods(votes: Votes) -> tuple[CalibrationMethod, ...]:
    """Return the methods to choose from: those with one parameter at most if few prompts were voted on.

    Votes on one prompt err together, so few prompts say little about more parameters, however many votes there are.
    """
    enough = len(np.unique(votes.groups)) >= _FEWEST_PROMPTS
    return CALIBRATION_METHODS if enough else ("none", "temperature")


def predict_nested(training: BlendInputs, recipe: BlendRecipe) -> NestedPredictions:
    """Blend each part by what is learned on the others. Raises as `fit_blend`."""
    blended = np.empty(training.predictions.shape[1:])
    calibrated = {method: np.empty_like(blended) for method in CALIBRATION_METHODS}
    with _one_thread():
        for part in np.unique(training.votes.folds):
            held_out = training.votes.folds == part
            remainder, scored = training.take(~held_out), training.take(held_out)
            fitted, pooled, votes = _fit(remainder, recipe)
            blended[held_out] = fitted.blender.predict(scored.predictions, scored.facts)
            raw = pool_predictions(pooled.pool, scored.with_silent_judges().predictions, pooled.weights)
            for method, values in calibrated.items():
                values[held_out] = fit_calibration(method, pooled.out_of_fold, votes).apply(raw)
    return NestedPredictions(blended, calibrated)


def predict_nested_without(training: BlendInputs, recipe: BlendRecipe, left_out: Collection[str]) -> Probabilities:
    """Return predictions (n, k) of the blend without some models; the class prior where no other model predicts."""
    rest = training.without(left_out)
    if recipe.blend == "preset":
        rest = rest.only(tuple(name for name in rest.models if recipe.preset.get(name, 0) > 0))
    predicted = np.asarray(prediction_mask(rest.predictions).any(axis=0))
    blended = class_prior_baseline(training.votes)
    if predicted.any():
        blended[predicted] = predict_nested(rest.take(predicted), recipe).blend
    return blended
