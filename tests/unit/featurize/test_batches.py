import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from featurize.tokens.batches import budget_batches, model_inputs, pad


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 1000))
def test_every_sequence_is_in_one_batch_within_the_budget(lengths, budget):
    batches = budget_batches(np.array(lengths, np.int64), budget)
    assert sorted(int(index) for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget


def test_batches_hold_sequences_of_like_lengths():
    lengths = np.tile([10, 100], 50)
    padded = sum(len(batch) * lengths[batch].max() for batch in budget_batches(lengths, 1000))
    assert padded == lengths.sum()


def test_padding_is_on_the_right_and_masked():
    ids, mask = pad([np.array([5, 6, 7]), np.array([8])], pad_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_model_gets_a_mask_only_where_there_is_padding_and_parts_only_if_it_asks():
    even, uneven = [np.array([5, 6]), np.array([7, 8])], [np.array([5, 6]), np.array([7])]
    assert set(model_inputs(even, 0)) == {"input_ids"}
    assert model_inputs(uneven, 9)["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert model_inputs(uneven, 9, [np.array([1, 2]), np.array([3])])["parts"].tolist() == [[1, 2], [3, 0]]
