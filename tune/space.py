"""Draw candidates from a search space, and convert the space for Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna

    from core.settings.tune import Dimension, Space

ParameterValue = bool | int | float | str
Parameters = dict[str, ParameterValue]


def draw_value(dimension: Dimension, rng: np.random.Generator) -> ParameterValue:
    """Return one value of a dimension."""
    low, high = dimension.low, dimension.high
    if dimension.integer and dimension.log:
        # Each integer gets its share of the line: from half below it to half above.
        value = np.exp(rng.uniform(np.log(low - 0.5), np.log(high + 0.5)))
        return int(np.clip(np.round(value), low, high))
    if dimension.integer:
        return int(rng.integers(int(low), int(high), endpoint=True))
    if dimension.log:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return float(rng.uniform(low, high))


def sample_candidates(space: Space, seed: int, count: int) -> list[Parameters]:
    """Return `count` candidates; those of a smaller count are the first of a larger count's."""
    rng = np.random.default_rng(seed)
    return [{name: draw_value(dimension, rng) for name, dimension in space.items()} for _ in range(count)]


def distributions(space: Space) -> dict[str, Any]:
    """Return the space as Optuna takes it."""
    return {name: _distribution(dimension) for name, dimension in space.items()}


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if dimension.integer:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
