"""Intervals of ranks that hold for all models at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Ints, Mask
    from leaderboard.fit import RatingFit

_DRAWS: Final = 2000
_CELLS: Final = 4_000_000  # differences in memory at a time


@dataclass(frozen=True)
class Ranks:
    """Ranks from 1, within the models that are comparable."""

    rank: Ints  # (m,)
    lower: Ints  # (m,) best rank of the 95% interval
    upper: Ints  # (m,) worst rank


def simultaneous_ranks(fit: RatingFit, seed: int = 0) -> Ranks:
    """Return the ranks with intervals that cover all true ranks together in 95% of samples.

    A model's best rank counts the models that are clearly ahead. Two models differ clearly if the difference of their
    ratings exceeds its standard error times the 95% quantile of the largest standardized error over all pairs
    (Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for ranks"). The quantile is simulated from the covariance.
    """
    same = fit.components[:, None] == fit.components[None, :]
    errors = fit.difference_errors()
    critical = max(_critical_value(fit, same, errors, seed), fit.quantile)
    lead = fit.ratings[:, None] - fit.ratings[None, :]
    ahead = same & (lead > critical * errors) & (errors > 0)
    size = same.sum(axis=1)
    behind = ahead.sum(axis=1)
    rank = 1 + (same & (lead.T > 0)).sum(axis=1)
    return Ranks(rank, 1 + ahead.sum(axis=0), size - behind)


def _critical_value(fit: RatingFit, same: Mask, errors: Doubles, seed: int) -> float:
    """Return the 95% quantile of the largest |error| / standard error over comparable pairs."""
    first, second = np.nonzero(np.triu(same, 1) & (errors > 0))
    if not len(first):
        return 0.0
    values, vectors = np.linalg.eigh(fit.rating_covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    rng = np.random.default_rng(seed)
    scale = errors[first, second]
    largest = []
    at_once = max(1, _CELLS // len(first))
    for start in range(0, _DRAWS, at_once):
        count = min(at_once, _DRAWS - start)
        draws = rng.standard_normal((count, len(root))) @ root.T
        if np.isfinite(fit.degrees):  # Student's t: the scale of the covariance is itself uncertain
            draws /= np.sqrt(rng.chisquare(fit.degrees, size=(count, 1)) / fit.degrees)
        largest.append(np.abs((draws[:, first] - draws[:, second]) / scale).max(axis=1))
    return float(np.quantile(np.concatenate(largest), 0.95))
