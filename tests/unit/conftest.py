"""The guard of the unit tier: no Ray cluster, and no process."""

from __future__ import annotations

import platform
import sys
from collections.abc import Generator, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final
from unittest import mock

import pytest

# Python raises an audit event before it starts a process, whichever library asks for it.
_STARTS: Final = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
_UNIT: Final = Path(__file__).parent
_FIX: Final = "move the test to tests/integration, or test the function below"


class _Guard:
    """An audit hook that refuses processes while a test runs. Python cannot remove hooks, so it has a switch."""

    def __init__(self) -> None:
        self.active = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Fail a test that starts a process. No `except Exception` hides this."""
        if self.active and event in _STARTS:
            pytest.fail(f"a unit test starts a process ({event}: {arguments[:2]!r}); {_FIX}")


platform.processor()  # runs `uname -p` once; gensim asks for it in tests
_guard: Final = _Guard()


def _refuse(process: BaseProcess) -> None:
    pytest.fail(f"a unit test starts a process (multiprocessing: {process!r}); {_FIX}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guard a unit test and its fixtures. Pytest calls this for the tests of other folders as well."""
    if not item.path.is_relative_to(_UNIT):
        return (yield)
    _guard.active = True
    try:
        with mock.patch.object(BaseProcess, "start", _refuse):  # spawning raises no audit event
            return (yield)
    finally:
        _guard.active = False


@pytest.fixture(autouse=True)
def _no_ray_cluster() -> Iterator[None]:
    """Fail a unit test that joins a Ray cluster, which other tests may have started."""
    ray = sys.modules.get("ray")
    already = ray is not None and ray.is_initialized()
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized() and not already:
        pytest.fail(f"a unit test joins a Ray cluster; {_FIX}")
