"""Progress of long work: plain lines with rates and the time left."""

import time

from core import logs


class Progress:
    """Count finished units (shards, folds) and rows; log a line at most every `every` seconds, and at the end."""

    def __init__(self, stage: str, unit: str, total: int, done: int = 0, every: float = 2.0) -> None:
        self.stage = stage
        self.unit = unit
        self.total = total
        self.done = done
        self._resumed = done
        self._rows = 0
        self._every = every
        self._started = self._printed = time.monotonic()
        if done:
            logs.info(stage, f"{done}/{total} {unit} already finished, resuming")

    def add_rows(self, rows: int) -> None:
        """Count rows whose unit is not finished yet."""
        self._rows += rows

    def advance(self, rows: int = 0, note: str = "") -> None:
        """Count one more finished unit."""
        self.done += 1
        self._rows += rows
        now = time.monotonic()
        if now - self._printed < self._every and self.done < self.total and not note:
            return
        self._printed = now
        elapsed = max(now - self._started, 1e-3)
        left = (self.total - self.done) * elapsed / (self.done - self._resumed)
        rate = f", {self._rows / elapsed:,.0f} rows/s" if self._rows else ""
        note = f", {note}" if note else ""
        logs.info(self.stage, f"{self.done}/{self.total} {self.unit}{rate}{note}, {left:.0f} s left")


class Throughput:
    """Count requests and their tokens; log a line with the time left at most every `every` seconds."""

    def __init__(self, stage: str, unit: str, total: int, tokens: int, every: float = 5.0) -> None:
        self._stage, self._unit = stage, unit
        self._total, self._tokens = total, tokens
        self._done = self._read = 0
        self._every = every
        self._started: float | None = None
        self._printed = 0.0

    def add(self, done: int, tokens: int) -> None:
        """Count finished requests. The clock starts with the first, so that a model's start-up does not count."""
        now = time.monotonic()
        if self._started is None:
            self._started = self._printed = now
        self._done += done
        self._read += tokens
        if now - self._printed >= self._every:
            self._printed = now
            self._log(now - self._started)

    def end(self) -> None:
        """Log the totals."""
        if self._started is not None:
            self._log(time.monotonic() - self._started)

    def _log(self, elapsed: float) -> None:
        rate = self._read / max(elapsed, 1e-3)
        left = (self._tokens - self._read) / max(rate, 1e-3)
        logs.info(self._stage, f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.0f} tokens/s, {left:.0f} s left")
