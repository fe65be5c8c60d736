import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from votes.folds import assign_folds, normalize_prompt, prompt_group
from votes.plan import _fold_labels


def test_near_copies_share_a_group_and_different_questions_do_not():
    same = [["What is 2 + 2?"], ["what is  2 + 2 "], ["WHAT IS 2 + 2 ?!"], ["What is ２ + 2?"]]
    assert len({prompt_group(turns) for turns in same}) == 1
    different: list[list[str | None]] = [["What is 2 + 3?"], ["What is 2 + 2?", "And 3 + 3?"], ["?"], ["!"], [""]]
    different.append([None, None])
    assert len({prompt_group(turns) for turns in different}) == len(different)


def test_turns_are_not_run_together():
    assert normalize_prompt(["ab", "c"]) != normalize_prompt(["a", "bc"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=60, max_size=300),
    st.integers(2, 10),
    st.integers(0, 5),
)
def test_groups_stay_whole_and_sizes_stay_level(votes, folds, seed):
    labels = np.array([label for label, _ in votes], dtype=np.int8)
    groups = np.array([group for _, group in votes], dtype=np.int64)
    if len(np.unique(groups)) < folds:
        with pytest.raises(ValueError, match="different prompts"):
            assign_folds(labels, groups, folds, seed)
        return
    fold = assign_folds(labels, groups, folds, seed)
    assert len(np.unique(fold)) == folds
    assert ((fold >= 0) & (fold < folds)).all()
    assert all(len(np.unique(fold[groups == group])) == 1 for group in np.unique(groups))
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 2 * np.bincount(groups).max() + 3


def test_single_records_are_stratified_to_within_one():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=1003, p=[0.5, 0.3, 0.2]).astype(np.int8)
    fold = assign_folds(labels, np.arange(1003), folds=10, seed=1)
    per_label = np.stack([np.bincount(fold[labels == label], minlength=10) for label in range(3)])
    assert (per_label.max(axis=1) - per_label.min(axis=1) <= 1).all()
    assert np.ptp(np.bincount(fold)) <= 2


def test_label_shares_match_scikit_learn_with_grouped_records():
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(3)
    groups = np.concatenate([np.repeat(np.arange(60), 6), np.arange(60, 400)])
    labels = rng.choice(3, size=len(groups), p=[0.4, 0.4, 0.2]).astype(np.int8)

    def spread(fold):
        counts = np.stack([np.bincount(fold[labels == label], minlength=5) for label in range(3)], axis=1)
        return np.abs(counts - counts.mean(axis=0)).max()

    theirs = np.empty(len(labels), dtype=int)
    for number, (_, held_out) in enumerate(StratifiedGroupKFold(5).split(labels, labels, groups)):
        theirs[held_out] = number
    assert spread(assign_folds(labels, groups, folds=5, seed=0)) <= spread(theirs) + 1


def test_equal_groups_fill_every_fold():
    fold = assign_folds(np.repeat(np.arange(3, dtype=np.int8), 2), np.repeat(np.arange(3), 2), folds=3, seed=0)
    assert np.bincount(fold).tolist() == [2, 2, 2]


def test_seed_decides_and_repeats():
    labels, groups = np.tile(np.array([0, 1, 2], dtype=np.int8), 50), np.arange(150)
    first = assign_folds(labels, groups, 5, seed=1)
    assert (first == assign_folds(labels, groups, 5, seed=1)).all()
    assert (first != assign_folds(labels, groups, 5, seed=2)).any()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), min_size=60, max_size=200),
    st.integers(2, 6),
    st.integers(0, 3),
)
def test_exchanging_the_answers_leaves_the_folds(votes, folds, seed):
    labels = np.array([label for label, _ in votes], dtype=np.int8)
    groups = np.array([group for _, group in votes], dtype=np.int64)
    try:
        expected = assign_folds(labels, groups, folds, seed)
    except ValueError:
        return
    exchanged = np.array([1, 0, 2], np.int8)[labels]
    assert assign_folds(exchanged, groups, folds, seed).tolist() == expected.tolist()


def test_labels_of_folds_exchange_with_the_sides():
    counts = np.array([[2.0, 1, 0], [1, 1, 0], [0, 1, 1], [1, 1, 2], [0, 0, 1], [3, 3, 3]])
    labels = _fold_labels(counts)
    exchanged = _fold_labels(counts[:, [1, 0, 2]])
    assert (np.array([1, 0, 2, 3])[labels] == exchanged).all()
    assert labels.tolist() == [0, 3, 1, 2, 2, 3]
