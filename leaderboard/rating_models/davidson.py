"""Davidson 1970, "On extending the Bradley-Terry model to accommodate ties in paired comparison experiments".

Outcomes have the weights exp(d / 2), exp(-d / 2) and, for a tie, nu. The tie parameter is ln nu.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.registry import RATING_MODELS
from leaderboard.rating_model import Curvature, RatingModel, Scores, probabilities_of

if TYPE_CHECKING:
    from core.arrays import Doubles

_PULLS = np.array([0.5, -0.5, 0.0])  # of the difference on each outcome's score


@RATING_MODELS.register
class Davidson(RatingModel):
    """Ties are most frequent between equals."""

    name = "davidson"
    summary = "Davidson's: ties have a parameter, and are most frequent between equals."
    has_tie_parameter = True
    tie_start = -1.0

    def log_probabilities(self, difference: Doubles, tie: float) -> Doubles:
        """See RatingModel."""
        from scipy.special import log_softmax

        scores = difference[:, None] * _PULLS + np.array([0.0, 0.0, tie])
        return np.asarray(log_softmax(scores, axis=1))

    def scores(self, difference: Doubles, tie: float) -> Scores:
        """See RatingModel."""
        chances = probabilities_of(self, difference, tie)
        return Scores(_PULLS - (chances @ _PULLS)[:, None], np.array([0.0, 0.0, 1.0]) - chances[:, 2:])

    def curvature(self, difference: Doubles, tie: float, counts: Doubles) -> Curvature:
        """See RatingModel. They are the votes times the variances of the outcomes' pulls."""
        chances, votes = probabilities_of(self, difference, tie), counts.sum(axis=1)
        mean, ties = chances @ _PULLS, chances[:, 2]
        spread = chances @ _PULLS**2 - mean**2
        return Curvature(votes * spread, -votes * mean * ties, votes * ties * (1 - ties))

    def win_rates(self, difference: Doubles, tie: float) -> Doubles:
        """See RatingModel."""
        chances = probabilities_of(self, difference, tie)
        half: Doubles = chances[:, 0] + chances[:, 2] / 2
        return half
