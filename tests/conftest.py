"""One local Ray cluster for the whole test session; starting one costs seconds."""

import datetime
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


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """Writes what came of a fault in a stage into the table, at once: hours of tests may end before their end."""

    def note(stage: str, what: str, result: str) -> None:
        path = request.config.getoption("--reliability")
        if path:
            _write_reliability(Path(path), stage, what, result)

    return note


def _write_reliability(path: Path, stage: str, what: str, result: str) -> None:
    """Write a row of the table; what it holds of other faults stays, with its day."""
    rows: dict[tuple[str, str], str] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            if line.startswith("| ") and not line.startswith("| fault "):
                known_fault, known_stage, rest = line.strip("| ").split(" | ", 2)
                rows[known_fault, known_stage] = rest
    rows[what, stage] = f"{result} | {datetime.date.today().isoformat()}"
    lines = [
        "# Reliability",
        "",
        "What was done to each stage of the demo pipeline while it was at work, what came of it, and when that was",
        "last seen. Each time the outputs were compared with an undisturbed run's: boosters' predictions to the byte,",
        "language models' to 1e-5. A row is written by a test that passed, and by nothing else:",
        "`python -m pytest tests/integration/jobs/test_reliability.py --reliability docs/reliability.md`.",
        "",
        "| fault | stage | result | seen |",
        "|---|---|---|---|",
        *(f"| {key[0]} | {key[1]} | {rest} |" for key, rest in rows.items()),
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
