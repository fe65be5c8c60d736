"""Running a command and watching the memory and the cores that all its processes take."""

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
    core_seconds: float  # of all its processes, up to the last look at each


def measure(line: Sequence[str], every: float = 0.5) -> Measured:
    """Run a command to its end and sample the memory of its process tree. Raises RuntimeError if it fails.

    Proportional set sizes are added up, since Ray's processes share the object store: resident sizes would count a
    page once for each process that looks at it.
    """
    start = time.monotonic()
    peak = 0
    cores: dict[int, float] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,  # a pipe that nobody empties would stop the command
        subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _look(root, cores))
            time.sleep(every)
        seconds = time.monotonic() - start
        said.seek(0)
        output = said.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}:\n{output[-3000:]}")
    return Measured(seconds, peak, output, sum(cores.values()))


def _look(root: psutil.Process, cores: dict[int, float]) -> int:
    """Bytes of all processes now; notes in `cores` the core-seconds that each has taken so far."""
    total = 0
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
            times = process.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        cores[process.pid] = times.user + times.system
    return total
