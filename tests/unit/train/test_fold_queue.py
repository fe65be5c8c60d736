"""The queue of folds: claims, deaths of workers, and checkpoints."""

from train.boosters.fold_queue import FoldFailed, FoldFinished, FoldQueue


def test_a_dead_workers_fold_goes_first_and_its_deaths_count_until_a_checkpoint() -> None:
    queue = FoldQueue([0, 1])
    assert queue.claim(10) == (0, None)
    assert queue.requeue(10, with_node=False) == (0, 1)
    assert queue.claim(10) is None, "a dead worker claims nothing"
    assert queue.claim(11) == (0, None)
    assert queue.requeue(11, with_node=True) == (0, 2), "a fold may be what kills its nodes"
    assert queue.claim(12) == (0, None)
    queue.save(0, b"half")
    assert queue.requeue(12, with_node=False) == (0, 1)
    assert queue.claim(13) == (0, b"half")
    queue.complete(12, FoldFinished(0, "late"))
    queue.complete(13, FoldFinished(0, "done"))
    events, waiting, working = queue.poll()
    assert events == [FoldFinished(0, "done")]
    assert waiting == 1
    assert working == {10, 11, 12, 13}
    assert queue.poll()[0] == [], "each event is polled once"


def test_a_lost_node_does_not_count_against_workers_that_had_no_fold() -> None:
    queue = FoldQueue([0])
    assert [queue.requeue(worker, with_node=True) for worker in range(10)] == [(None, 0)] * 10
    assert [queue.requeue(worker, with_node=False) for worker in (10, 11)] == [(None, 1), (None, 2)]
    assert queue.claim(12) == (0, None)
    queue.complete(12, FoldFinished(0, None))
    assert queue.requeue(13, with_node=False) == (None, 1), "workers could start"


def test_a_failed_fold_is_an_event_and_waits_no_more() -> None:
    queue = FoldQueue([4])
    queue.claim(0)
    failure = FoldFailed(4, RuntimeError("disk full"))
    queue.complete(0, failure)
    assert queue.poll() == ([failure], 0, {0})
    assert queue.claim(1) is None
