"""One local Ray cluster for the whole test session; starting one costs seconds."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    import ray
    import ray.data

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE", help="write the table of faults that were survived to this file")


_SURVIVED: dict[tuple[str, str], str] = {}


@pytest.fixture
def fault() -> Callable[[str, str, str], None]:
    """Notes what came of a fault in a stage, for the table."""

    def note(stage: str, what: str, result: str) -> None:
        _SURVIVED[what, stage] = result

    return note


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--reliability")
    if not path:
        return
    lines = [
        "# Reliability",
        "",
        "What was done to each stage of the demo pipeline while it was at work, and what came of it. In each row the",
        "outputs were compared with an undisturbed run's: boosters' predictions to the byte, language models' to 1e-5.",
        "Made by `python -m pytest tests/ray_jobs/test_reliability.py --reliability docs/reliability.md`.",
        "",
        "| fault | stage | result |",
        "|---|---|---|",
        *(f"| {what} | {stage} | {result} |" for (what, stage), result in _SURVIVED.items()),
    ]
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
