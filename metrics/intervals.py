"""Intervals of means: the cluster bootstrap, and standard errors of grouped values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Groups, Mask

_BATCH = 32  # bootstrap draws in one product of matrices


def bootstrap_means(
    values: Doubles, groups: Groups, weights: Doubles | None = None, repetitions: int = 2000, seed: int = 0
) -> Doubles:
    """Return bootstrap samples (repetitions, columns) of the column means of `values` (n, columns).

    `weights` (n,) are the votes of each row, 1 if not given.

    Whole groups are drawn, because records of one prompt are not independent. Each mean is a ratio of drawn sums to
    drawn sizes: the cluster bootstrap (Cameron, Gelbach and Miller 2008).
    """
    from threadpoolctl import threadpool_limits

    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    weights = np.ones(len(values)) if weights is None else weights
    sums = np.stack([np.bincount(group_of, weights=column * weights, minlength=count) for column in values.T], axis=1)
    sizes = np.bincount(group_of, weights=weights, minlength=count)
    rng = np.random.default_rng(seed)
    means = np.empty((repetitions, values.shape[1]))
    # The products are small. BLAS threads would mostly wait for each other: for seconds on a busy machine.
    with threadpool_limits(1, "blas"):
        for start in range(0, repetitions, _BATCH):
            # One product for several draws reads the sums once.
            drawn = np.empty((min(_BATCH, repetitions - start), count))
            for row in drawn:
                row[:] = np.bincount(rng.integers(0, count, size=count), minlength=count)
            means[start : start + _BATCH] = (drawn @ sums) / (drawn @ sizes)[:, None]
    return means


def bootstrap_part_means(
    values: Doubles, parts: Mask, groups: Groups, weights: Doubles | None = None, repetitions: int = 2000, seed: int = 0
) -> Doubles:
    """Return bootstrap samples (repetitions, k + 1) of the means of `values` (n,): over k `parts` (n, k), then all.

    Groups are drawn as in `bootstrap_means`, so the mean of a part is comparable with the mean of all. A sample is nan
    if its draw has no record of the part.
    """
    members = np.concatenate([parts, np.ones((len(values), 1), bool)], axis=1)
    columns = np.concatenate([members * values[:, None], members], axis=1)
    means = bootstrap_means(columns, groups, weights, repetitions, seed)
    sums, sizes = np.split(means, 2, axis=1)
    with np.errstate(invalid="ignore"):
        part_means: Doubles = sums / sizes
    return part_means


def standard_error(values: Doubles, groups: Groups, weights: Doubles | None = None) -> float:
    """Return the standard error of the mean of `values` (n,) if whole groups are independent; inf for a single group.

    It is cluster-robust, with the small-sample factor (Cameron, Gelbach and Miller 2008, section II).
    """
    weights = np.ones(len(values)) if weights is None else weights
    _, group_of = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_of, weights=(values - np.average(values, weights=weights)) * weights)
    if len(sums) == 1:
        return float("inf")
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / weights.sum())


def percentile_interval(samples: Doubles, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap samples (repetitions,), without samples that are nan."""
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
