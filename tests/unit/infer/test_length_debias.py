import numpy as np

from infer.ensemble.length_debias import fit_length_slope, length_differences, remove_length_effect
from infer.ensemble.pools import softmax
from votes.swap import swap_probabilities


def test_differences_are_antisymmetric_and_bounded():
    a, b = np.array([0, 10, 30, 0]), np.array([0, 10, 10, 7])
    assert length_differences(a, b).tolist() == [0, 0, 0.5, -1]
    assert length_differences(b, a).tolist() == [0, 0, -0.5, 1]


def test_the_length_term_is_found_and_taken_out():
    rng = np.random.default_rng(0)
    content, lengths, tie = rng.normal(size=4000), rng.uniform(-1, 1, 4000), rng.normal(size=4000)
    odds = content + 1.7 * lengths
    predictions = softmax(np.stack([odds / 2, -odds / 2, tie], axis=1))
    coefficient = fit_length_slope(predictions, lengths)
    assert abs(coefficient - 1.7) < 0.1
    made = remove_length_effect(predictions, lengths, 1.7)
    assert np.allclose(np.log(made[:, 0] / made[:, 1]), content, atol=1e-9)
    assert np.allclose(made[:, 2], predictions[:, 2], atol=1e-12)
    assert np.allclose(made.sum(axis=1), 1, atol=1e-12)
    assert abs(fit_length_slope(remove_length_effect(predictions, lengths, coefficient), lengths)) < 1e-9


def test_it_is_antisymmetric():
    rng = np.random.default_rng(1)
    predictions, lengths = rng.dirichlet([2, 3, 1], size=200), rng.uniform(-1, 1, 200)
    assert np.isclose(
        fit_length_slope(swap_probabilities(predictions), -lengths), fit_length_slope(predictions, lengths)
    )
    turned = remove_length_effect(swap_probabilities(predictions), -lengths, 0.8)
    assert np.allclose(turned, swap_probabilities(remove_length_effect(predictions, lengths, 0.8)), atol=1e-12)


def test_answers_of_equal_length_have_no_length_term():
    assert fit_length_slope(np.full((5, 3), 1 / 3), np.zeros(5)) == 0
