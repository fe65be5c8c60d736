"""Run a command and measure the memory and the CPU time of all its processes."""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Measured:
    """The resources of a finished command."""

    seconds: float
    peak_bytes: int  # of all its processes at one time; shared memory counts once
    output: str
    core_seconds: float  # of all its processes, up to the last sample of each


def measure(line: Sequence[str], every: float = 0.5) -> Measured:
    """Run a command to its end and sample the memory of its process tree. Raises RuntimeError if it fails.

    The memory is the sum of proportional set sizes. Ray's processes share the object store, and resident set sizes
    would count a page once for each process that maps it.
    """
    start = time.monotonic()
    peak = 0
    cores: dict[int, float] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,  # a pipe would fill up and block the command
        subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _sample(root, cores))
            time.sleep(every)
        seconds = time.monotonic() - start
        log.seek(0)
        output = log.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}:\n{output[-3000:]}")
    return Measured(seconds, peak, output, sum(cores.values()))


def _sample(root: psutil.Process, cores: dict[int, float]) -> int:
    """Return the bytes of all processes now. Update in `cores` the core-seconds of each process so far."""
    total = 0
    try:
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
            times = process.cpu_times()
        except psutil.Error:  # the process has ended
            continue
        cores[process.pid] = times.user + times.system
    return total
