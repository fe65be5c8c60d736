import numpy as np
import pytest

from core.registry import ENGINES
from core.settings.tune import Dimension
from tune.space import distributions, draw_value, sample_candidates

SPACES = {f"{engine.name}-{name}": space for engine in ENGINES for name, space in engine.search_spaces.items()}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_candidates_lie_inside_and_follow_from_the_seed(space):
    drawn = sample_candidates(space, seed=4, count=50)
    assert sample_candidates(space, seed=4, count=20) == drawn[:20]
    assert sample_candidates(space, seed=5, count=50) != drawn
    for name, dimension in space.items():
        values = np.array([candidate[name] for candidate in drawn])
        assert dimension.low <= values.min() < values.max() <= dimension.high
        assert values.dtype.kind == ("i" if dimension.integer else "f")


def test_logarithmic_values_are_even_in_their_logarithm():
    rng = np.random.default_rng(1)
    dimension = Dimension(low=0.01, high=100.0, log=True)
    leaves = Dimension(low=4, high=64, log=True, integer=True)
    assert abs(np.mean([float(draw_value(leaves, rng)) < 16 for _ in range(2000)]) - 0.5) < 0.05
    below_one = np.mean([float(draw_value(dimension, rng)) < 1 for _ in range(2000)])
    assert abs(below_one - 0.5) < 0.05


def test_optuna_is_given_the_same_space():
    space = distributions(
        {
            "a": Dimension(low=1, high=4, integer=True),
            "b": Dimension(low=0.1, high=1.0, log=True),
            "c": Dimension(low=0, high=1),
        }
    )
    assert (space["a"].low, space["a"].high, space["a"].log) == (1, 4, False)
    assert (space["b"].low, space["b"].high, space["b"].log) == (0.1, 1.0, True)
    assert (space["c"].low, space["c"].high, space["c"].log) == (0.0, 1.0, False)
    assert type(space["a"]).__name__ == "IntDistribution"
