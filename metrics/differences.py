"""Differences between two answers on one scale, whatever their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles


def normalized_difference(a: Doubles, b: Doubles) -> Doubles:
    """Return (a - b) / (a + b) of counts (n,) of at least 0, as in the arena's style control; 0 if both are 0."""
    total = a + b
    difference: Doubles = np.where(total > 0, a - b, 0.0) / np.maximum(total, 1.0)
    return difference
