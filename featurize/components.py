"""Principal components of vectors, from moments that shards report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Floats


@dataclass(frozen=True)
class Moments:
    """Count, sum (d,) and sum of outer products (d, d) of vectors: all that principal components need."""

    count: int
    total: Doubles
    products: Doubles

    @classmethod
    def of(cls, vectors: Floats) -> Moments:
        """Return the moments of vectors (n, d)."""
        wide = vectors.astype(np.float64)
        return cls(len(wide), wide.sum(axis=0), wide.T @ wide)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)


@dataclass(frozen=True)
class Components:
    """Principal components: the mean (d,) and directions (k, d), by falling variance."""

    mean: Doubles
    directions: Doubles

    def reduce(self, vectors: Floats) -> Floats:
        """Return the coordinates (n, k) of vectors (n, d)."""
        return ((vectors - self.mean) @ self.directions.T).astype(np.float32)


def principal_components(moments: Moments, count: int) -> Components:
    """Return the first `count` principal components of the vectors behind the moments.

    The largest entry of each direction is positive, so that the sign does not depend on the linear algebra library.
    """
    mean = moments.total / moments.count
    covariance = moments.products / moments.count - np.outer(mean, mean)
    _, vectors = np.linalg.eigh(covariance)
    directions = vectors.T[::-1][:count]
    largest = np.abs(directions).argmax(axis=1)
    return Components(mean, directions * np.sign(directions[np.arange(len(directions)), largest])[:, None])
