"""Compare counts of two answers on a scale from -1 to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles


def normalized_difference(a: Doubles, b: Doubles) -> Doubles:
    """Return (a - b) / (a + b) of nonnegative counts (n,), or 0 if both are 0. The arena's style control uses it."""
    total = a + b
    difference: Doubles = np.where(total > 0, a - b, 0.0) / np.maximum(total, 1.0)
    return difference
