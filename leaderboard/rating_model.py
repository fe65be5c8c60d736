"""Define the interface of rating models: the probability of a battle's outcomes from a difference of ratings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities


class Scores(NamedTuple):
    """Derivatives of the logarithm of each outcome's probability (n, 3)."""

    difference: Doubles  # by the difference of ratings
    tie: Doubles  # by the tie parameter


class Curvature(NamedTuple):
    """Negative second derivatives of the log-likelihood (n,)."""

    difference: Doubles
    cross: Doubles  # by the difference and by the tie parameter
    tie: Doubles


class RatingModel(ABC):
    """A member of the registry RATING_MODELS.

    `difference` (n,) is the rating of the first model minus that of the second, in log-odds. `tie` is one number, in
    the member's own unit, that says how frequent ties are.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    has_tie_parameter: ClassVar[bool]
    tie_start: ClassVar[float] = 0.0

    @abstractmethod
    def log_probabilities(self, difference: Doubles, tie: float) -> Doubles:
        """Return the log-likelihood (n, 3) of one vote: first, second, tie."""

    @abstractmethod
    def scores(self, difference: Doubles, tie: float) -> Scores:
        """Return the derivatives of `log_probabilities`."""

    @abstractmethod
    def curvature(self, difference: Doubles, tie: float, counts: Doubles) -> Curvature:
        """Return the negative second derivatives for votes `counts` (n, 3)."""

    @abstractmethod
    def win_rates(self, difference: Doubles, tie: float) -> Doubles:
        """Return the expected score of the first model: its wins and half of the ties."""


def sigmoid(scores: Doubles) -> Doubles:
    """Return 1 / (1 + exp(-scores))."""
    from scipy.special import expit

    return np.asarray(expit(scores))


def log_sigmoid(scores: Doubles) -> Doubles:
    """Return the logarithm of the sigmoid."""
    from scipy.special import log_expit

    return np.asarray(log_expit(scores))


def probabilities_of(model: RatingModel, difference: Doubles, tie: float) -> Probabilities:
    """Return probabilities (n, 3) of a model whose likelihood is one."""
    return np.asarray(np.exp(model.log_probabilities(difference, tie)))
