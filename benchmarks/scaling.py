"""How training folds scales: 10 folds of 2 boosters on clusters of one-CPU nodes, against the ideal.

Run as: python -m benchmarks.scaling --slots 1 2 5 10 20 --fold-seconds 60

Virtual nodes share one machine, so what a fold costs is a fixed sleep, added to training a few trees; all else
is the product's own: the job train_boosters with its slots, wrappers, checkpoints and files. Ideal: all sleeps divided
by the slots; the time is that of the job, from its call to its end, in a process that has joined the cluster.
"""

import argparse
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.featurize import ROOT

if TYPE_CHECKING:
    from train.booster import Engine

FOLDS, BOOSTERS = 10, ("lightgbm", "xgboost")
SETTINGS = [
    "data.synthetic.train_rows=200",
    "data.synthetic.test_rows=20",
    f"data.folds={FOLDS}",
    "boosters.lightgbm.rounds=5",
    "boosters.xgboost.rounds=5",
    "llms=[]",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--fold-seconds", type=float, default=60.0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("result", json.dumps(_train(Path(options.child), options.slots[0], options.fold_seconds)))
        return
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        for job in ("ingest", "featurize"):
            _run([sys.executable, "-m", f"ray_jobs.{job}", *_settings(made)])
        print(f"{'slots':>5} {'seconds':>8} {'ideal':>8} {'of ideal':>8}")
        for slots in options.slots:
            run = Path(name) / f"slots-{slots}"
            shutil.copytree(made, run)
            line = [sys.executable, "-m", "benchmarks.scaling", "--child", str(run), "--slots", str(slots)]
            told = _run([*line, "--fold-seconds", str(options.fold_seconds)])
            seconds = json.loads(told.splitlines()[-1].removeprefix("result "))
            ideal = FOLDS * len(BOOSTERS) * options.fold_seconds / slots
            print(f"{slots:5} {seconds:8.1f} {ideal:8.1f} {ideal / seconds:8.1%}", flush=True)


def _settings(run: Path) -> list[str]:
    line = ["--config", "configs/demo.yaml"]
    for override in (f"run={run}", *SETTINGS):
        line += ["--set", override]
    return line


def _run(line: list[str]) -> str:
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return done.stdout


def _train(run: Path, slots: int, fold_seconds: float) -> float:
    """Seconds that train_boosters takes on a cluster of so many nodes of one CPU beside a head without any."""
    import ray
    from ray.cluster_utils import Cluster

    from ray_jobs.run import Run
    from ray_jobs.settings_file import load_settings
    from ray_jobs.train_boosters import train_boosters
    from train import fold_runner

    # Sent to the workers as it is here, with its engines made slow.
    fold_runner.engine_of = functools.partial(_slow_engine, fold_runner.engine_of, fold_seconds)
    ray.cloudpickle.register_pickle_by_value(fold_runner)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(slots):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        overrides = [f"run={run}", *SETTINGS]
        config = (ROOT / "configs/demo.yaml").read_text(encoding="utf-8")
        started = time.perf_counter()
        train_boosters(Run(load_settings(config, "configs/demo.yaml", overrides)))
        return time.perf_counter() - started
    finally:
        ray.shutdown()
        cluster.shutdown()


class _SlowEngine:
    """An engine whose folds take longer by a sleep."""

    def __init__(self, engine: "Engine", seconds: float) -> None:
        self._engine = engine
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the engine has
        return getattr(self._engine, name)

    def start(self, *arguments: Any) -> Any:  # noqa: ANN401 - as the engine's
        """Start a fold, late."""
        time.sleep(self._seconds)
        return self._engine.start(*arguments)


def _slow_engine(engine_of: Any, seconds: float, name: Any) -> Any:  # noqa: ANN401 - as train.fold_runner's
    return _SlowEngine(engine_of(name), seconds)


if __name__ == "__main__":
    main()
