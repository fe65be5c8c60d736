"""What other people's votes tell of a vote."""

import numpy as np
import pytest

from metrics.voters import SharedVotes


def nobody(records):
    """Unknown voters."""
    return np.full(len(records), -1)


def shared(truth, rng, people=4, noise=0.3):
    """Votes of some people on each record: the truth, or with `noise` any outcome."""
    records = np.repeat(np.arange(len(truth)), people)
    votes = np.where(rng.random(len(records)) < noise, rng.integers(0, 3, len(records)), truth[records])
    return SharedVotes.of(records, votes.astype(np.int8), (records % 5).astype(np.int16), records, nobody(records), 3)[
        0
    ]


def test_records_with_one_vote_are_left_out():
    records = np.array([0, 1, 1, 2, 2, 2])
    votes, used = SharedVotes.of(
        records, np.array([0, 1, 1, 0, 1, 2], np.int8), np.zeros(6, np.int16), records, nobody(records), classes=3
    )
    assert used.tolist() == [False, True, True, True, True, True]
    np.testing.assert_array_equal(votes.others[0], [0, 1, 0])
    np.testing.assert_array_equal(votes.others[2], [0, 1, 1])
    np.testing.assert_allclose(votes.agreement, [1, 1, 0, 0, 0])
    np.testing.assert_allclose(votes.chance, [0.6, 0.6, 0.2, 0.6, 0.2])


def test_the_losses_are_those_of_the_best_predictions():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 4000)
    votes = shared(truth, rng)
    same = 0.7 + 0.1  # of a vote with the truth
    alike = same**2 + 2 * 0.1**2  # of two votes
    best_from_one = -(alike * np.log(alike) + (1 - alike) * np.log((1 - alike) / 2))
    assert votes.loss_from_one().mean() == pytest.approx(best_from_one, abs=0.01)
    assert votes.loss_from_all().mean() < votes.loss_from_one().mean() - 0.05
    assert votes.agreement.mean() == pytest.approx(alike, abs=0.01)


def test_votes_that_tell_nothing_of_each_other_are_no_better_than_the_prior():
    rng = np.random.default_rng(1)
    votes = shared(rng.integers(0, 3, 1000), rng, noise=1.0)
    for losses in (votes.loss_from_one(), votes.loss_from_all()):
        assert losses.mean() == pytest.approx(np.log(3), abs=0.02)
    assert votes.loss_from_one().mean() > np.log(3) - 0.002  # out-of-fold, so nothing is learnt from the vote itself


def test_a_fold_is_predicted_from_the_others():
    """A record's own fold does not count: with votes of one fold alone, the tables are flat."""
    records = np.array([0, 0, 1, 1])
    votes, _ = SharedVotes.of(
        records, np.array([0, 0, 1, 1], np.int8), np.zeros(4, np.int16), records, nobody(records), 3
    )
    np.testing.assert_allclose(votes.loss_from_one(), np.log(3))


def test_a_person_is_not_compared_with_their_own_votes():
    records = np.array([0, 0, 0, 1, 1])
    voters = np.array([7, 7, 8, 7, 7])
    labels = np.array([0, 1, 1, 2, 2], np.int8)
    votes, used = SharedVotes.of(records, labels, np.zeros(5, np.int16), records, voters, 3)
    assert used.tolist() == [True, False, True, False, False]
    np.testing.assert_array_equal(votes.agreement, [0, 0])
