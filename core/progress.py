"""What a long job says while it works: plain lines, good in a terminal and in a job's log."""

import sys
import time

_last = time.monotonic()


def say(stage: str, text: str) -> None:
    """One line about a stage, on standard error so that standard output stays for results."""
    global _last
    _last = time.monotonic()
    print(f"[{stage}] {text}", file=sys.stderr, flush=True)


def quiet_seconds() -> float:
    """Since the last line."""
    return time.monotonic() - _last


class Progress:
    """Counts units (shards, folds) and rows; prints a line at most every `every` seconds, and at the end."""

    def __init__(self, stage: str, unit: str, total: int, done: int = 0, every: float = 2.0) -> None:
        self.stage = stage
        self.unit = unit
        self.total = total
        self.done = done
        self._found = done
        self._rows = 0
        self._every = every
        self._started = self._printed = time.monotonic()
        if done:
            say(stage, f"{done}/{total} {unit} found finished, resuming")

    def add_rows(self, rows: int) -> None:
        """Rows that are done before their unit is."""
        self._rows += rows

    def advance(self, rows: int = 0, note: str = "") -> None:
        """One more unit is finished."""
        self.done += 1
        self._rows += rows
        now = time.monotonic()
        if now - self._printed < self._every and self.done < self.total and not note:
            return
        self._printed = now
        elapsed = max(now - self._started, 1e-3)
        left = (self.total - self.done) * elapsed / (self.done - self._found)
        rate = f", {self._rows / elapsed:,.0f} rows/s" if self._rows else ""
        note = f", {note}" if note else ""
        say(self.stage, f"{self.done}/{self.total} {self.unit}{rate}{note}, {left:.0f} s left")


class Throughput:
    """Counts requests and their tokens; prints a line at most every `every` seconds, with the time that is left."""

    def __init__(self, stage: str, unit: str, total: int, tokens: int, every: float = 5.0) -> None:
        self._stage, self._unit = stage, unit
        self._total, self._tokens = total, tokens
        self._done = self._read = 0
        self._every = every
        self._started: float | None = None
        self._printed = 0.0

    def add(self, done: int, tokens: int) -> None:
        """So many more are done. The clock starts with the first, so that a model's start-up does not count."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._printed = now
        self._done += done
        self._read += tokens
        if now - self._printed >= self._every:
            self._printed = now
            self._say(now - self._started)

    def end(self) -> None:
        """Say how it went in all."""
        if self._started is not None:
            self._say(time.monotonic() - self._started)

    def _say(self, elapsed: float) -> None:
        rate = self._read / max(elapsed, 1e-3)
        left = (self._tokens - self._read) / max(rate, 1e-3)
        say(self._stage, f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.0f} tokens/s, {left:.0f} s left")
