"""Blend predictions for new records with a fitted blend, stored as plain JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer.ensemble.calibration import UNCALIBRATED, Calibration
from infer.ensemble.fallbacks import DEGENERATE_CASES
from infer.ensemble.length_debias import remove_length_effect
from infer.ensemble.pools import pool_predictions, prediction_mask, silence_judges

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from infer.ensemble.fallbacks import DegenerateCase
    from infer.ensemble.pools import PoolName
    from infer.ensemble.record_facts import RecordFacts


@dataclass(frozen=True)
class Blender:
    """Pool the models' predictions, calibrate the pool, remove length if set, and apply fallbacks."""

    models: tuple[str, ...]
    pool: PoolName
    weights: tuple[float, ...]
    calibration: Calibration = UNCALIBRATED
    length_coefficient: float | None = None  # None keeps the influence of length
    fallbacks: Mapping[DegenerateCase, tuple[float, ...]] = dataclasses.field(default_factory=dict)  # the applied ones
    judges: tuple[str, ...] = ()  # models that predict from judges' verdicts
    without_judges: Blender | None = None  # for records without a verdict; None if there are only judges, or none

    def predict(self, predictions: Probabilities, facts: RecordFacts) -> Probabilities:
        """Return probabilities (n, k) from the models' (models, n, k), in the order of `models`; nan rows are missing.

        The length term is removed from ordinary records only: an empty answer is not a short answer. Raises ValueError
        if no model predicts a record.
        """
        if self.without_judges is not None:
            return self._predict_by_verdicts(predictions, facts, self.without_judges)
        predictions = silence_judges(predictions, self.models, self.judges)
        blended = self.calibration.apply(pool_predictions(self.pool, predictions, np.array(self.weights)))
        if self.length_coefficient is not None:
            ordinary = facts.cases == 0
            differences = facts.length_differences[ordinary]
            blended[ordinary] = remove_length_effect(blended[ordinary], differences, self.length_coefficient)
        for case, probabilities in self.fallbacks.items():
            blended[facts.cases == DEGENERATE_CASES.index(case)] = probabilities
        return blended

    def _predict_by_verdicts(self, predictions: Probabilities, facts: RecordFacts, without: Blender) -> Probabilities:
        """Return probabilities (n, k), by the blend without judges where no judge predicts."""
        of_judges = [self.models.index(name) for name in self.judges]
        judged = np.asarray(prediction_mask(predictions[of_judges]).any(axis=0))
        blended = np.empty(predictions.shape[1:])
        with_all = dataclasses.replace(self, without_judges=None)
        blended[judged] = with_all.predict(predictions[:, judged], facts.take(judged))
        others = [self.models.index(name) for name in without.models]
        blended[~judged] = without.predict(predictions[others][:, ~judged], facts.take(~judged))
        return blended

    def only(self, models: tuple[str, ...]) -> Blender:
        """Return the same blend of some of its models, with their weights as they are."""
        weights = dict(zip(self.models, self.weights, strict=True))
        without = self.without_judges
        if without is not None:
            others = tuple(model for model in models if model in without.models)
            without = without.only(others) if others else None
        return dataclasses.replace(
            self,
            models=models,
            weights=tuple(weights[model] for model in models),
            judges=tuple(model for model in self.judges if model in models),
            without_judges=without,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all fields, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Blender:
        """Return the blender that `to_json` described, to the last bit."""
        fields = {
            "models": tuple(values["models"]),
            "weights": tuple(values["weights"]),
            "calibration": Calibration.from_json(values["calibration"]),
            "fallbacks": {case: tuple(probabilities) for case, probabilities in values["fallbacks"].items()},
            "judges": tuple(values.get("judges", ())),
            "without_judges": cls.from_json(values["without_judges"]) if values.get("without_judges") else None,
        }
        return cls(**{**values, **fields})
