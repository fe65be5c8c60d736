"""Remove the part of a prediction that comes from length, as if both answers had the same length.

Length-controlled AlpacaEval (Dubois et al. 2024) models the part of the log-odds that length explains, and sets it to
0. Here it is fitted to the blend's own log-odds, which already reflect the votes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer.ensemble.pools import clip_to_simplex, softmax

if TYPE_CHECKING:
    from core.arrays import Doubles, Ints, Probabilities


def length_differences(lengths_a: Ints, lengths_b: Ints) -> Doubles:
    """Return (A - B) / (A + B) of lengths in characters (n,), or 0 if both are empty."""
    differences: Doubles = (lengths_a - lengths_b) / np.maximum(lengths_a + lengths_b, 1)
    return differences


def fit_length_slope(predictions: Probabilities, differences: Doubles) -> float:
    """Return the slope of ln P(A) / P(B) on the length difference (n,), by least squares without intercept.

    Without intercept it is exactly antisymmetric: exchanging A and B changes the sign of both. The slope is 0 if no
    answers differ in length.
    """
    odds = np.log(predictions[:, 0]) - np.log(predictions[:, 1])  # exact under exchange, unlike the log of the ratio
    square = float((differences**2).sum())
    return float((odds * differences).sum()) / square if square > 0 else 0.0


def remove_length_effect(predictions: Probabilities, differences: Doubles, coefficient: float) -> Probabilities:
    """Return predictions (n, k) without the length term in the log-odds of A and B; only their shares change."""
    shift = coefficient * differences / 2
    decided = softmax(np.log(predictions[:, :2]) - np.stack([shift, -shift], axis=1))
    others = predictions[:, 2:]
    return clip_to_simplex(np.concatenate([decided * (1 - others.sum(axis=1, keepdims=True)), others], axis=1))
