import numpy as np
import pytest

from tune.space import OURS, PUBLISHED, Dimension, distributions, draw


@pytest.mark.parametrize("space", [PUBLISHED, *OURS.values()])
def test_candidates_lie_inside_and_follow_from_the_seed(space):
    drawn = draw(space, seed=4, count=50)
    assert draw(space, seed=4, count=20) == drawn[:20]
    assert draw(space, seed=5, count=50) != drawn
    for name, dimension in space.items():
        values = np.array([candidate[name] for candidate in drawn])
        assert dimension.low <= values.min() < values.max() <= dimension.high
        assert values.dtype.kind == ("i" if dimension.whole else "f")


def test_logarithmic_values_are_even_in_their_logarithm():
    rng = np.random.default_rng(1)
    dimension = Dimension(0.01, 100.0, log=True)
    leaves = Dimension(4, 64, log=True, whole=True)
    assert abs(np.mean([float(leaves.draw(rng)) < 16 for _ in range(2000)]) - 0.5) < 0.05
    below_one = np.mean([float(dimension.draw(rng)) < 1 for _ in range(2000)])
    assert abs(below_one - 0.5) < 0.05


def test_optuna_is_given_the_same_space():
    made = distributions({"a": Dimension(1, 4, whole=True), "b": Dimension(0.1, 1.0, log=True), "c": Dimension(0, 1)})
    assert (made["a"].low, made["a"].high, made["a"].log) == (1, 4, False)
    assert (made["b"].low, made["b"].high, made["b"].log) == (0.1, 1.0, True)
    assert (made["c"].low, made["c"].high, made["c"].log) == (0.0, 1.0, False)
    assert type(made["a"]).__name__ == "IntDistribution"
