"""Starting a local Ray where a machine is too busy for the time that Ray gives itself."""

import pytest
import ray

from core import run

LATE = "The current node timed out during startup. This could happen because..."


def test_a_start_that_is_always_late_ends_with_a_fix(monkeypatch):
    def init(**options):
        raise Exception(LATE)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match=r"did not start in 3 tries .*Fix:"):
        run._start({})


def test_another_failure_is_not_tried_again(monkeypatch):
    calls = []

    def init(**options):
        calls.append(options)
        raise ValueError("no")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="no"):
        run._start({})
    assert len(calls) == 1
