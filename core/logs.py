"""Log lines of jobs: time, level, stage and text, on standard error so that standard output stays for results."""

import logging
import sys
import time
from typing import Final

LOGGER: Final = logging.getLogger("tiebreak")
_FORMAT: Final = "%(asctime)s %(levelname)-7s [%(stage)s] %(message)s"
_last_line = time.monotonic()


class _StandardError(logging.Handler):
    """Write to the current sys.stderr, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. A library's line has its logger in place of a stage."""
        record.stage = getattr(record, "stage", record.name)
        print(self.format(record), file=sys.stderr, flush=True)


_handler: Final = _StandardError()


def configure(level: int = logging.INFO) -> None:
    """Set the lowest level to show. At DEBUG, show libraries' own lines too, from INFO up."""
    if not LOGGER.handlers:
        _handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
        LOGGER.addHandler(_handler)
        LOGGER.propagate = False
    LOGGER.setLevel(level)
    root = logging.getLogger()
    if level <= logging.DEBUG:
        root.addHandler(_handler)
        root.setLevel(logging.INFO)
    elif _handler in root.handlers:
        root.removeHandler(_handler)
        root.setLevel(logging.WARNING)


def debug(stage: str, text: str) -> None:
    """Log a detail of a stage; --verbose shows it."""
    _log(logging.DEBUG, stage, text)


def info(stage: str, text: str) -> None:
    """Log what a stage does."""
    _log(logging.INFO, stage, text)


def warning(stage: str, text: str) -> None:
    """Log a warning for the user; the stage continues."""
    _log(logging.WARNING, stage, text)


def seconds_since_last_line() -> float:
    """Return how long nothing was logged."""
    return time.monotonic() - _last_line


def _log(level: int, stage: str, text: str) -> None:
    global _last_line
    _last_line = time.monotonic()
    if not LOGGER.handlers:  # a function called without a job's command line
        configure()
    LOGGER.log(level, text, extra={"stage": stage})
