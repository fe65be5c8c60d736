"""Looking at the processes of a test's own Ray cluster."""

import contextlib
import time
from typing import Any

import psutil


def wait_until(condition: Any, seconds: float) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def processes(*names: str) -> "list[psutil.Process]":
    """This test's own Ray processes of these names; other clusters may run on the machine."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and "".join(child.cmdline()).startswith(names):
                found.append(child)
    return found
