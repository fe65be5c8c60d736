"""A fitted blend: all that is needed to blend the predictions for new records, as plain JSON."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from infer.ensemble.calibration import UNCALIBRATED, Calibration
from infer.ensemble.fallbacks import CASES, Case, Codes
from infer.ensemble.length_debias import at_equal_length
from infer.ensemble.pools import Floats, linear_pool, log_pool

Pool = Literal["linear", "log"]


@dataclass(frozen=True)
class Blender:
    """Pools the models' predictions, calibrates the pool, takes length out if asked to, and guards degenerate cases."""

    models: tuple[str, ...]
    pool: Pool
    weights: tuple[float, ...]
    calibration: Calibration = UNCALIBRATED
    length_coefficient: float | None = None  # None leaves the influence of length in
    guards: Mapping[Case, tuple[float, ...]] = dataclasses.field(default_factory=dict)  # the applied ones

    def predict(self, predictions: Floats, cases: Codes, differences: Floats) -> Floats:
        """Probabilities (n, 3) from those of the models (models, n, 3), in the order of `models`; nan rows are missing.

        `cases` (n,) are codes of infer.ensemble.fallbacks, `differences` (n,) those of infer.ensemble.length_debias. Only ordinary records lose
        the length term: an empty answer is no short one. Raises ValueError if no model predicts a record.
        """
        blended = self.calibration.apply(pool(self.pool, predictions, np.array(self.weights)))
        if self.length_coefficient is not None:
            ordinary = cases == 0
            blended[ordinary] = at_equal_length(blended[ordinary], differences[ordinary], self.length_coefficient)
        for case, probabilities in self.guards.items():
            blended[cases == CASES.index(case)] = probabilities
        return blended

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Blender":
        """The blender that `to_json` gave, to the last bit."""
        read = {
            "models": tuple(values["models"]),
            "weights": tuple(values["weights"]),
            "calibration": Calibration.from_json(values["calibration"]),
            "guards": {case: tuple(probabilities) for case, probabilities in values["guards"].items()},
        }
        return cls(**{**values, **read})


def pool(name: Pool, predictions: Floats, weights: Floats) -> Floats:
    """The models' probabilities (models, n, 3) pooled to (n, 3)."""
    return log_pool(predictions, weights) if name == "log" else linear_pool(predictions, weights)
