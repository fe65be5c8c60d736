"""Fitting a blend, and scoring it without a record's vote having any say in its own prediction.

`fit` learns everything of a blend from out-of-fold predictions: the weights, which pool if both are asked for, which
calibration, and the guards. What follows the weights is fitted on predictions pooled with weights of other parts.
`nested` scores that as a whole: each part of the records is blended by what `fit` learns on the others alone. (The
models behind the out-of-fold predictions of the others did see its votes, as everywhere in stacking.)
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from infer.ensemble.blender import Blender, Pool, pool
from infer.ensemble.calibration import METHODS, Method, choose, compare, cross_calibrate, fit_calibration
from infer.ensemble.fallbacks import Codes, Guard, fit_guards
from infer.ensemble.length_debias import fit_length
from infer.ensemble.pools import (
    Floats,
    Labels,
    Learn,
    drop_idle,
    greedy_weights,
    learn_log_weights,
    learn_weights,
    linear_pool,
    log_pool,
    predicted_by,
    preset_weights,
)
from metrics.baselines import class_prior
from metrics.scores import log_loss, record_log_loss

BlendName = Literal["learnt", "linear", "log", "greedy", "equal", "preset"]
BLENDS: Final[tuple[BlendName, ...]] = get_args(BlendName)  # in the order in which they are shown
Integers = npt.NDArray[np.int64]
Parts = npt.NDArray[np.int16]

_LEARN: Final[Mapping[BlendName, Learn]] = {
    "linear": functools.partial(drop_idle, learn_weights, linear_pool),
    "log": functools.partial(drop_idle, learn_log_weights, log_pool),
    "greedy": greedy_weights,
}
# A tenth or a fifth of the records is held out at a time: with many records weights learnt on four fifths are as good,
# and are learnt in a quarter of the time.
_PARTS, _PARTS_OF_MANY, _MANY = 10, 5, 10_000


@dataclass(frozen=True)
class Recipe:
    """What kind of blend to fit."""

    blend: BlendName = "learnt"  # learnt is the better of linear and log
    calibration: Method | Literal["auto"] = "auto"
    length_debias: bool = False
    preset: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """Records to fit a blend on: out-of-fold predictions with nan rows where a model lacks a record, and votes."""

    models: tuple[str, ...]
    predictions: Floats  # (models, n, 3)
    labels: Labels
    parts: Parts  # what is held out together; see `blend_parts`
    groups: Integers  # records of one prompt
    cases: Codes  # see infer.ensemble.fallbacks
    differences: Floats  # see infer.ensemble.length_debias

    def rows(self, chosen: npt.NDArray[np.bool_]) -> "Training":
        """The records of a mask (n,)."""
        arrays = {name: getattr(self, name)[chosen] for name in ("labels", "parts", "groups", "cases", "differences")}
        return Training(self.models, self.predictions[:, chosen], **arrays)

    def only(self, models: tuple[str, ...]) -> "Training":
        """The same records with the predictions of some models."""
        return dataclasses.replace(
            self, models=models, predictions=self.predictions[[self.models.index(name) for name in models]]
        )


def blend_parts(folds: npt.NDArray[np.int16], groups: Integers) -> Parts:
    """Parts (n,) to be held out together, from the records' folds; prompts stay whole.

    Folds are put together into ten parts, or into five if there are many records. Fewer than five folds are divided
    by prompt, so that what is fitted within the other parts has parts to hold out, too.
    """
    _, fold_of = np.unique(folds, return_inverse=True)
    count = int(fold_of.max()) + 1
    most = _PARTS if len(folds) <= _MANY else _PARTS_OF_MANY
    pieces = -(-5 // count) if count < 5 else 1
    return (fold_of % most + count * (groups % pieces)).astype(np.int16)


@dataclass(frozen=True)
class Pooled:
    """Weights, and the records' predictions pooled with weights that were learnt without their part."""

    pool: Pool
    weights: Floats
    out_of_fold: Floats  # (n, 3)


@dataclass(frozen=True)
class Fitted:
    """A blender, and what was found about each case of degenerate answers."""

    blender: Blender
    guards: list[Guard]


@dataclass(frozen=True)
class Nested:
    """Predictions (n, 3) that never saw their votes: the whole blend's, and its pool's under each calibration."""

    predictions: Floats
    calibrated: dict[Method, Floats]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Keep BLAS to one thread: scipy's optimizers give it tiny matrices, and its threads spin while they wait."""
    import scipy.optimize  # noqa: F401 - only libraries that are loaded can be kept to it
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def fit(data: Training, recipe: Recipe) -> Fitted:
    """Fit a blend. Raises ValueError if no model predicts a record, or if a preset names none of the models."""
    with _one_thread():
        return _finish(data, recipe, _fit_pool(data, recipe))


def _fit_pool(data: Training, recipe: Recipe) -> Pooled:
    """Learn the weights; of two pools take the one with the lower loss out-of-fold."""
    names: tuple[BlendName, ...] = ("linear", "log") if recipe.blend == "learnt" else (recipe.blend,)
    found = [_cross_pool(data, name, recipe.preset) for name in names]
    return min(found, key=lambda pooled: log_loss(pooled.out_of_fold, data.labels))


def _cross_pool(data: Training, name: BlendName, preset: Mapping[str, float]) -> Pooled:
    kind: Pool = "log" if name == "log" else "linear"
    if name in ("equal", "preset"):
        weights = preset_weights(preset if name == "preset" else dict.fromkeys(data.models, 1.0), data.models)
        return Pooled(kind, weights, pool(kind, data.predictions, weights))
    learn = _LEARN[name]
    pooled = np.empty(data.predictions.shape[1:])
    for part in np.unique(data.parts):
        held_out = data.parts == part
        weights = learn(data.predictions[:, ~held_out], data.labels[~held_out])
        pooled[held_out] = pool(kind, data.predictions[:, held_out], weights)
    return Pooled(kind, learn(data.predictions, data.labels), pooled)


def _finish(data: Training, recipe: Recipe, pooled: Pooled) -> Fitted:
    """What follows the weights: calibration, length, guards; nothing for the preset, which stays as published."""
    made = Blender(data.models, pooled.pool, tuple(pooled.weights.tolist()))
    if recipe.blend == "preset":
        guards = fit_guards(pooled.out_of_fold, data.labels, data.cases, data.parts, data.groups)
        reason = "the preset stays as published"
        return Fitted(made, [dataclasses.replace(guard, applied=False, reason=reason) for guard in guards])
    wanted = METHODS if recipe.calibration == "auto" else (recipe.calibration,)
    crossed = {method: cross_calibrate(method, pooled.out_of_fold, data.labels, data.parts) for method in wanted}
    losses = {method: record_log_loss(values, data.labels) for method, values in crossed.items()}
    chosen = choose(compare(losses, data.groups))
    blended, ordinary = crossed[chosen], data.cases == 0
    made = dataclasses.replace(
        made,
        calibration=fit_calibration(chosen, pooled.out_of_fold, data.labels),
        length_coefficient=fit_length(blended[ordinary], data.differences[ordinary]) if recipe.length_debias else None,
    )
    guards = fit_guards(blended, data.labels, data.cases, data.parts, data.groups)
    applied = {guard.case: guard.probabilities for guard in guards if guard.applied}
    return Fitted(dataclasses.replace(made, guards=applied), guards)


def nested(data: Training, recipe: Recipe) -> Nested:
    """Blend each part by what is learnt on the others. Raises as `fit`."""
    blended = np.empty(data.predictions.shape[1:])
    calibrated = {method: np.empty_like(blended) for method in METHODS}
    with _one_thread():
        for part in np.unique(data.parts):
            held_out = data.parts == part
            rest, there = data.rows(~held_out), data.rows(held_out)
            pooled = _fit_pool(rest, recipe)
            blended[held_out] = _finish(rest, recipe, pooled).blender.predict(
                there.predictions, there.cases, there.differences
            )
            raw = pool(pooled.pool, there.predictions, pooled.weights)
            for method, values in calibrated.items():
                values[held_out] = fit_calibration(method, pooled.out_of_fold, rest.labels).apply(raw)
    return Nested(blended, calibrated)


def nested_without(data: Training, recipe: Recipe, model: str) -> Floats:
    """Predictions (n, 3) of the blend without a model. Records that no other model predicts get the class prior."""
    left = tuple(name for name in data.models if name != model)
    if recipe.blend == "preset":
        left = tuple(name for name in left if recipe.preset.get(name, 0) > 0)
    there = np.asarray(predicted_by(data.only(left).predictions).any(axis=0))
    blended = class_prior(data.labels, data.parts)
    if there.any():
        blended[there] = nested(data.only(left).rows(there), recipe).predictions
    return blended
