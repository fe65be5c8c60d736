import numpy as np
import pyarrow as pa

from tests.helpers.swap import swap_records
from votes.schema import TRAIN_RECORDS
from votes.swap import position_effect, swap_average, swap_probabilities


def test_swapping_records_twice_is_identity_and_once_moves_answers_models_and_vote():
    row = {
        "id": "7",
        "position": 0,
        "prompt": ["q", None],
        "response_a": ["first"],
        "response_b": [None],
        "language": "en",
        "group": 5,
        "model_a": "m",
        "model_b": "n",
        "votes": [2.0, 1.0, 0.0],
        "training_votes": None,
        "voters": 3,
        "label": 0,
        "fold": 3,
    }
    records = pa.Table.from_pylist([row, {**row, "label": 2}], TRAIN_RECORDS)
    swapped = swap_records(records)
    assert swapped.schema.equals(records.schema)
    assert swapped.to_pylist()[0] == {
        **row, "response_a": [None], "response_b": ["first"], "model_a": "n", "model_b": "m", "label": 1,
        "votes": [1.0, 2.0, 0.0],
    }  # fmt: skip
    assert swapped["label"].to_pylist() == [1, 2]
    assert swap_records(swapped).equals(records)


def test_the_average_of_both_orders_is_exactly_antisymmetric():
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet([1, 1, 1], size=(2, 50))
    assert (swap_average(one, other)[:, [1, 0, 2]] == swap_average(other, one)).all()


def test_the_effect_of_position_is_told_from_predictions_in_both_orders():
    # The first is called A in either order, the second B and then, seen from the other side, B again.
    straight = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    exchanged = np.array([[0.5, 0.1, 0.4], [0.7, 0.1, 0.2]])
    found = position_effect(straight, exchanged)
    assert (found["records"], found["flip_rate"]) == (2, 0.5)
    assert np.isclose(found["first_share"], (0.65 + 0.35 + 0.7 + 0.8) / 4)
    indifferent = position_effect(straight, swap_probabilities(straight))
    assert indifferent == {"records": 2, "flip_rate": 0.0, "first_share": 0.5}
