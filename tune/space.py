"""What a search draws from: a range for each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str
Parameters = dict[str, Value]
ROUNDS: Final = "rounds"  # the one name in a space that is no parameter of the engine


@dataclass(frozen=True)
class Dimension:
    """Values between `low` and `high`, both included: even, even in their logarithm, or whole numbers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> Value:
        """One value."""
        if self.whole and self.log:
            # Each number gets its share of the line: from half below it to half above.
            drawn = np.exp(rng.uniform(np.log(self.low - 0.5), np.log(self.high + 0.5)))
            return int(np.clip(np.round(drawn), self.low, self.high))
        if self.whole:
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.log:
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return float(rng.uniform(self.low, self.high))

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


Space = Mapping[str, Dimension]

# The published notebook's: xgboost's RandomizedSearchCV over Word2Vec columns.
PUBLISHED: Final[Space] = {
    ROUNDS: Dimension(200, 280, whole=True),
    "max_depth": Dimension(5, 9, whole=True),
    "eta": Dimension(0.015, 0.05),
    "subsample": Dimension(0.5, 0.7),
    "colsample_bytree": Dimension(0.65, 0.8),
    "gamma": Dimension(0.0, 0.3),
    "alpha": Dimension(0.0, 1.0),
    "lambda": Dimension(2.0, 3.5),
}

# Ours reach further towards plain models, which win while there are few votes.
OURS: Final[Mapping[str, Space]] = {
    "lightgbm": {
        "learning_rate": Dimension(0.01, 0.1, log=True),
        "num_leaves": Dimension(4, 64, log=True, whole=True),
        "min_data_in_leaf": Dimension(10, 200, log=True, whole=True),
        "feature_fraction": Dimension(0.05, 0.8, log=True),
        "bagging_fraction": Dimension(0.4, 0.9),
        "lambda_l1": Dimension(1e-3, 10.0, log=True),
        "lambda_l2": Dimension(0.1, 100.0, log=True),
    },
    "xgboost": {
        "eta": Dimension(0.01, 0.1, log=True),
        "max_depth": Dimension(2, 7, whole=True),
        "min_child_weight": Dimension(1.0, 100.0, log=True),
        "subsample": Dimension(0.4, 0.9),
        "colsample_bytree": Dimension(0.05, 0.8, log=True),
        "gamma": Dimension(0.0, 0.5),
        "alpha": Dimension(1e-3, 10.0, log=True),
        "lambda": Dimension(0.1, 100.0, log=True),
    },
    "two_part": {
        "c_anti": Dimension(1e-4, 1.0, log=True),
        "c_tie": Dimension(1e-4, 1.0, log=True),
    },
}


def draw(space: Space, seed: int, count: int) -> list[Parameters]:
    """`count` candidates; those of a smaller count are the first of a larger one's."""
    rng = np.random.default_rng(seed)
    return [{name: dimension.draw(rng) for name, dimension in space.items()} for _ in range(count)]


def distributions(space: Space) -> dict[str, Any]:
    """The space as Optuna takes it."""
    return {name: dimension.distribution() for name, dimension in space.items()}
