"""One local Ray cluster for the whole test session; starting one costs seconds."""

import datetime
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    import ray
    import ray.data

    # Ray Train's controller looks every 2 s, and an epoch of a tiny model waits for it to take the epoch's numbers.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    # Ray ends idle workers beyond one for each CPU after a second, and the next job starts and imports again:
    # keeping six saves about a tenth of the tests' processor time.
    keep_workers = {"num_workers_soft_limit": 6, "idle_worker_killing_time_threshold_ms": 600_000}
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        _system_config=keep_workers,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    yield
    ray.shutdown()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """With `--dist loadgroup`, give files that use `ray_cluster` to one worker per cluster, and other files to any.

    Tests of jobs share one cluster, and the rest another: on a single one, one worker would have most of the work.
    Tests that start processes of their own run next to them: they mostly wait. The marks of pytest-xdist 3.8 have no
    effect with pytest 9.2, which no longer reads `_nodeid`.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if "ray_cluster" not in (config.rootpath / file).read_text("utf-8"):
                return file
            return f"ray_cluster of {'jobs' if file.startswith('tests/integration/jobs/') else 'the rest'}"

    return Scheduling(config, log)


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
        "Faults injected into each running stage of the demo pipeline, with the result and the date of the last test.",
        "Each test compares the outputs with an undisturbed run's: predictions of boosters to the byte, of language",
        "models within 1e-5. Only a test that passed writes its row:",
        "`python -m pytest tests/integration/jobs/test_reliability.py --reliability docs/reliability.md`.",
        "",
        "| fault | stage | result | seen |",
        "|---|---|---|---|",
        *(f"| {key[0]} | {key[1]} | {rest} |" for key, rest in rows.items()),
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
