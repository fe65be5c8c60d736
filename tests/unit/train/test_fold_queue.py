"""The board of folds: who lost what, and how often."""

from train.boosters.fold_queue import Board, Finished


def test_a_lost_fold_goes_first_and_its_losses_count_until_a_checkpoint() -> None:
    board = Board([0, 1])
    assert board.take(10) == (0, None)
    assert board.lost(10, with_node=False) == (0, 1)
    assert board.take(10) is None, "a lost slot gets nothing"
    assert board.take(11) == (0, None)
    assert board.lost(11, with_node=True) == (0, 2), "a fold may be what kills its nodes"
    assert board.take(12) == (0, None)
    board.save(0, b"half")
    assert board.lost(12, with_node=False) == (0, 1)
    assert board.take(13) == (0, b"half")
    board.post(12, Finished(0, "late"))
    board.post(13, Finished(0, "done"))
    events, waiting, at_work = board.look()
    assert events == [Finished(0, "done")]
    assert waiting == 1
    assert at_work == {10, 11, 12, 13}


def test_a_lost_node_is_nothing_against_slots_that_had_not_begun() -> None:
    board = Board([0])
    assert [board.lost(slot, with_node=True) for slot in range(10)] == [(None, 0)] * 10
    assert [board.lost(slot, with_node=False) for slot in (10, 11)] == [(None, 1), (None, 2)]
    assert board.take(12) == (0, None)
    board.post(12, Finished(0, None))
    assert board.lost(13, with_node=False) == (None, 1), "slots could start"
