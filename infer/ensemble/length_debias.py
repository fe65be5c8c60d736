"""What a prediction owes to length, and what it would be if both answers were equally long.

Length-controlled AlpacaEval (Dubois et al. 2024) splits a preference's log-odds into what length explains and the rest,
and sets the first part to 0. Here both parts are taken from the blend's own log-odds, which already hold what votes say
of length; the votes, given these, hold no more of it.
"""

import numpy as np
import numpy.typing as npt

from infer.ensemble.pools import Floats, open_simplex, softmax


def length_differences(lengths_a: npt.NDArray[np.int64], lengths_b: npt.NDArray[np.int64]) -> Floats:
    """(A - B) / (A + B) of lengths in characters (n,): from -1 to 1, and 0 where both are empty."""
    differences: Floats = (lengths_a - lengths_b) / np.maximum(lengths_a + lengths_b, 1)
    return differences


def fit_length(predictions: Floats, differences: Floats) -> float:
    """The slope of ln P(A) / P(B) on the length difference (n,), by least squares without intercept.

    Without intercept it is exactly antisymmetric: exchanging A and B changes the sign of both. It is 0 if all answers
    are as long as those beside them.
    """
    odds = np.log(predictions[:, 0] / predictions[:, 1])
    square = float((differences**2).sum())
    return float((odds * differences).sum()) / square if square > 0 else 0.0


def at_equal_length(predictions: Floats, differences: Floats, coefficient: float) -> Floats:
    """Predictions (n, 3) without the length term of their log-odds between A and B; P(tie) stays as it is."""
    shift = coefficient * differences / 2
    decided = softmax(np.log(predictions[:, :2]) - np.stack([shift, -shift], axis=1))
    tie = predictions[:, 2:]
    return open_simplex(np.concatenate([decided * (1 - tie), tie], axis=1))
