"""Battles drawn from known ratings."""

import numpy as np

from core.arrays import Doubles
from leaderboard.battles import Battles
from leaderboard.rating_model import RatingModel, probabilities_of


def make_battles(models: int, first, second, counts, groups=None, style=None) -> Battles:
    """Battles of models called m0, m1 and so on; every record has a prompt of its own by default."""
    first, second = np.asarray(first, np.intp), np.asarray(second, np.intp)
    size = len(first)
    return Battles(
        tuple(f"m{n}" for n in range(models)),
        first,
        second,
        np.asarray(counts, float),
        np.arange(size) if groups is None else np.asarray(groups),
        np.empty((size, 0)) if style is None else np.asarray(style, float),
    )


def draw_votes(chances: Doubles, rng: np.random.Generator) -> Doubles:
    """One vote (n, 3) from each row of probabilities (n, 3)."""
    outcome = (rng.random(len(chances))[:, None] > chances.cumsum(axis=1)[:, :2]).sum(axis=1)
    votes: Doubles = np.eye(3)[outcome]
    return votes


def draw_battles(ratings: Doubles, size: int, model: RatingModel, tie: float, rng: np.random.Generator) -> Battles:
    """Votes on random pairs of models with these ratings."""
    count = len(ratings)
    first = rng.integers(0, count, size)
    second = (first + rng.integers(1, count, size)) % count
    chances = probabilities_of(model, ratings[first] - ratings[second], tie)
    return make_battles(count, first, second, draw_votes(chances, rng))
