"""Rao and Kupper 1967, "Ties in paired-comparison experiments: a generalization of the Bradley-Terry model".

A side wins if it leads by more than a threshold t > 0: P(first) = sigmoid(d - t), P(second) = sigmoid(-d - t). The
rest is a tie: (exp(2 t) - 1) P(first) P(second). The tie parameter is ln t, so that any number is valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.registry import RATING_MODELS
from leaderboard.rating_model import Curvature, RatingModel, Scores, log_sigmoid, probabilities_of, sigmoid

if TYPE_CHECKING:
    from core.arrays import Doubles


@RATING_MODELS.register
class RaoKupper(RatingModel):
    """Ties come from leads that are too small to see."""

    name = "rao_kupper"
    summary = "Rao and Kupper's: a lead below a threshold is a tie."
    has_tie_parameter = True
    tie_start = -1.0

    def log_probabilities(self, difference: Doubles, tie: float) -> Doubles:
        """See RatingModel."""
        threshold = np.exp(tie)
        first, second = log_sigmoid(difference - threshold), log_sigmoid(-difference - threshold)
        return np.stack([first, second, first + second + np.log(np.expm1(2 * threshold))], axis=1)

    def scores(self, difference: Doubles, tie: float) -> Scores:
        """See RatingModel."""
        threshold = np.exp(tie)
        first, second = 1 - sigmoid(difference - threshold), 1 - sigmoid(-difference - threshold)
        by_tie = np.stack([-first, -second, -first - second + _slope(threshold)], axis=1)
        return Scores(np.stack([first, -second, first - second], axis=1), threshold * by_tie)

    def curvature(self, difference: Doubles, tie: float, counts: Doubles) -> Curvature:
        """See RatingModel."""
        threshold = np.exp(tie)
        first, second = sigmoid(difference - threshold), sigmoid(-difference - threshold)
        won = (counts[:, 0] + counts[:, 2]) * first * (1 - first)
        lost = (counts[:, 1] + counts[:, 2]) * second * (1 - second)
        bend = counts[:, 2] * _slope(threshold) * (_slope(threshold) - 2)
        by_threshold = won + lost + bend
        # By the chain rule, the logarithm of the threshold adds its own slope.
        slope = (counts * self.scores(difference, tie).tie).sum(axis=1)
        return Curvature(won + lost, threshold * (lost - won), threshold**2 * by_threshold - slope)

    def win_rates(self, difference: Doubles, tie: float) -> Doubles:
        """See RatingModel."""
        chances = probabilities_of(self, difference, tie)
        half: Doubles = chances[:, 0] + chances[:, 2] / 2
        return half


def _slope(threshold: float) -> float:
    """Return the derivative of ln(exp(2 t) - 1)."""
    return float(2 / -np.expm1(-2 * threshold))
