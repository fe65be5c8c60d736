"""Running a command and watching the memory of all its processes."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Measured:
    """What a finished command took."""

    seconds: float
    peak_bytes: int  # of all its processes at one time; memory that they share counts once
    output: str


def measure(line: Sequence[str], every: float = 0.5) -> Measured:
    """Run a command to its end and sample the memory of its process tree. Raises RuntimeError if it fails.

    Proportional set sizes are added up, since Ray's processes share the object store: resident sizes would count a
    page once for each process that looks at it.
    """
    start = time.monotonic()
    peak = 0
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,  # a pipe that nobody empties would stop the command
        subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _tree_bytes(root))
            time.sleep(every)
        seconds = time.monotonic() - start
        said.seek(0)
        output = said.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}:\n{output[-3000:]}")
    return Measured(seconds, peak, output)


def _tree_bytes(root: psutil.Process) -> int:
    total = 0
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total
