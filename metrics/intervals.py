"""Intervals of means: the cluster bootstrap, and standard errors of grouped values."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_DRAWS = 32  # bootstrap draws at a time


def bootstrap_means(values: Floats, groups: npt.NDArray[np.int64], repetitions: int = 2000, seed: int = 0) -> Floats:
    """Bootstrap distribution (repetitions, columns) of the column means of `values` (n, columns).

    Whole groups are drawn (records of one prompt are not independent), so each mean is a ratio of drawn sums to drawn
    sizes: the cluster bootstrap (Cameron, Gelbach and Miller 2008).
    """
    from threadpoolctl import threadpool_limits

    _, group_of = np.unique(groups, return_inverse=True)
    count = int(group_of.max()) + 1
    sums = np.stack([np.bincount(group_of, weights=column, minlength=count) for column in values.T], axis=1)
    sizes = np.bincount(group_of, minlength=count).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty((repetitions, values.shape[1]))
    # The products are small: BLAS's threads would mostly wait for each other, on a busy machine for seconds.
    with threadpool_limits(1, "blas"):
        for start in range(0, repetitions, _DRAWS):
            # Several draws in one product of matrices: alone, each would read all the sums again.
            drawn = np.empty((min(_DRAWS, repetitions - start), count))
            for row in drawn:
                row[:] = np.bincount(rng.integers(0, count, size=count), minlength=count)
            means[start : start + _DRAWS] = (drawn @ sums) / (drawn @ sizes)[:, None]
    return means


def bootstrap_parts(
    values: Floats, parts: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64], repetitions: int = 2000, seed: int = 0
) -> Floats:
    """Bootstrap distribution (repetitions, k + 1) of the means of `values` (n,) over k `parts` (n, k), then over all.

    The draws of groups are those of `bootstrap_means`, so a part's mean can be set against the whole's. Where a draw
    has none of a part's records, the part's mean is nan; a part that has records in few groups knows little anyway.
    """
    everything = np.concatenate([parts, np.ones((len(values), 1), bool)], axis=1)
    means = bootstrap_means(
        np.concatenate([everything * values[:, None], everything], axis=1), groups, repetitions, seed
    )
    sums, sizes = np.split(means, 2, axis=1)
    with np.errstate(invalid="ignore"):
        parted: Floats = sums / sizes
    return parted


def standard_error(values: Floats, groups: npt.NDArray[np.int64]) -> float:
    """Standard error of the mean of `values` (n,) where whole groups are independent; infinite for a single group.

    The cluster-robust one with its small-sample factor (Cameron, Gelbach and Miller 2008, section II).
    """
    _, group_of = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_of, weights=values - values.mean())
    if len(sums) == 1:
        return float("inf")
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(values))


def interval(samples: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap samples (repetitions,) without those that are nan, draws that had no value."""
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
