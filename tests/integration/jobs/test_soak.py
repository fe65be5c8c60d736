"""Twenty pipelines, one after another, on one cluster: nothing grows but the logs.

`python -m pytest -s tests/integration/jobs/test_soak.py` prints what was there after each.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.commands import ROOT, job_line, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]  # a slow machine needs minutes for each pipeline

PIPELINES, WARM = 20, 2  # what the first two leave is what any number may leave
SMALL = [
    "data.synthetic.train_rows=200",
    "data.synthetic.test_rows=40",
    "data.folds=3",
    "data.shard_rows=60",
    "boosters.lightgbm.rounds=20",
    "boosters.xgboost.rounds=20",
    "llms=[{name: llama, demo: {architecture: llama}, max_tokens: 64}]",
]
LIVING = """
import json
from ray.util.state import list_actors, list_placement_groups
actors = list_actors(filters=[("state", "!=", "DEAD")], limit=9999)
groups = list_placement_groups(filters=[("state", "!=", "REMOVED")], limit=9999)
print(json.dumps({"actors": len(actors), "placement groups": len(groups)}))
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the cluster keeps its session, and all else that is temporary; short, since sockets lie there."""
    # Ray's log monitor may still write while the folder is removed.
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _told(line: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def _address(temporary: Path) -> str:
    return (temporary / "ray_current_cluster").read_text().strip()


def _files(temporary: Path) -> list[Path]:
    return [path for path in temporary.rglob("*") if "logs" not in path.parts]


def _left(env: dict[str, str], temporary: Path) -> dict[str, int]:
    """What there is on the cluster and in its folder of temporary files."""
    stored = _told(["ray", "memory", "--stats-only", "--address", _address(temporary)], env)
    (objects,) = re.findall(r"Plasma memory usage (\d+) MiB, (\d+) objects", stored)
    return {
        "processes": len(psutil.Process().children(recursive=True)),
        "files": len(_files(temporary)),
        "MiB in objects": int(objects[0]),
        "objects": int(objects[1]),
        **json.loads(_told([sys.executable, "-c", LIVING], env).splitlines()[-1]),
    }


def _grown(allowed: dict[str, int], left: dict[str, int]) -> dict[str, int]:
    return {name: left[name] - allowed[name] for name in left if left[name] > allowed[name]}


def test_nothing_is_left_of_pipelines(tmp_path: Path, temporary: Path) -> None:
    (temporary / "tmp").mkdir()
    allowed: dict[str, int] = {}
    known: set[Path] = set()
    with ray_head(tmp_path, cpus=2, temporary=temporary, TMPDIR=f"{temporary}/tmp") as env:
        for n in range(PIPELINES):
            run = tmp_path / f"run-{n}"
            _told(
                ["ray", "job", "submit", "--working-dir", ".", "--", "python", *job_line("pipeline", run, *SMALL)], env
            )
            shutil.rmtree(run)
            left = _left(env, temporary)
            end = time.monotonic() + 60  # idle workers go, one after another
            while n >= WARM and _grown(allowed, left) and time.monotonic() < end:
                time.sleep(5)
                left = _left(env, temporary)
            print(n, left, flush=True)
            if n < WARM:
                allowed = {name: max(count, allowed.get(name, 0)) for name, count in left.items()}
                known |= set(_files(temporary))
            elif grown := _grown(allowed, left):
                print("\n".join([f"grown: {grown}", *sorted(map(str, set(_files(temporary)) - known))]))
                print(_told(["ray", "memory", "--address", _address(temporary)], env))
                for state in temporary.glob("session_*/logs/debug_state.txt"):  # the raylet's, every 10 s
                    print(state.read_text(), flush=True)
    assert not _grown(allowed, left)  # after the last; what grew on the way was printed
