"""The processes of a test's own Ray cluster."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psutil


def wait_until(condition: Any, seconds: float) -> bool:
    """Return whether the condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def processes(*names: str) -> "list[psutil.Process]":
    """Return this test's own Ray processes of these names; other clusters may run on the machine."""
    return [process for process, name in _own() if name.startswith(names)]


def kinds(*prefixes: str) -> set[str]:
    """Return the kinds of this test's own Ray processes, such as ray::FoldQueue, without the method that runs."""
    return {name.partition(".")[0] for _, name in _own() if name.startswith(prefixes)}


def _own() -> "Iterator[tuple[psutil.Process, str]]":
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                yield child, "".join(child.cmdline())
