"""Bradley and Terry 1952, "Rank analysis of incomplete block designs", with a tie as half a win of each side.

P(first) = sigmoid(d). It is the model of the arena's leaderboard and of arena-rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.registry import RATING_MODELS
from leaderboard.rating_model import Curvature, RatingModel, Scores, log_sigmoid, sigmoid

if TYPE_CHECKING:
    from core.arrays import Doubles


@RATING_MODELS.register
class BradleyTerry(RatingModel):
    """Ties as half wins."""

    name = "bradley_terry"
    summary = "Bradley-Terry; a tie is half a win of each side, as in the arena's leaderboard."
    has_tie_parameter = False

    def log_probabilities(self, difference: Doubles, tie: float) -> Doubles:
        """See RatingModel. A tie has the mean of both."""
        first, second = log_sigmoid(difference), log_sigmoid(-difference)
        return np.stack([first, second, (first + second) / 2], axis=1)

    def scores(self, difference: Doubles, tie: float) -> Scores:
        """See RatingModel."""
        chance = sigmoid(difference)
        return Scores(np.stack([1 - chance, -chance, 0.5 - chance], axis=1), np.zeros((len(difference), 3)))

    def curvature(self, difference: Doubles, tie: float, counts: Doubles) -> Curvature:
        """See RatingModel."""
        chance = sigmoid(difference)
        zeros = np.zeros(len(difference))
        return Curvature(counts.sum(axis=1) * chance * (1 - chance), zeros, zeros)

    def win_rates(self, difference: Doubles, tie: float) -> Doubles:
        """See RatingModel."""
        return sigmoid(difference)
