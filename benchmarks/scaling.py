"""How work spreads over clusters of one-CPU nodes, against the ideal.

Run as: python -m benchmarks.scaling folds --slots 1 2 5 10 20 --seconds 60
        python -m benchmarks.scaling shards --slots 2 5 10 20 --seconds 10
        python -m benchmarks.scaling dispatch --slots 2

Virtual nodes share one machine, so what a fold or a shard costs is a fixed sleep; all else is the product's own, and so
is what it takes to start the processes of all nodes on the cores of one. Take a machine with about as many cores as
slots, or sleeps that are long beside that.

folds: train_boosters with 10 folds of 2 boosters, its slots, wrappers, checkpoints and files; sleeps are added
to training a few trees.
shards: 40 shards under Ray Data, as every stage without labels spreads its work; once all alike, and once with the last
one four times as long: a straggler at the worst moment.
dispatch: shards without any work, to see what each costs the driver and the scheduler, and whether it grows.

Ideal: all sleeps divided by the slots; the time is from the call to its end, in a process that has joined the cluster.
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
SHARDS, STRAGGLER = 40, 4
DISPATCHED = (1000, 10_000)
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
    parser.add_argument("work", choices=["folds", "shards", "dispatch"])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--seconds", type=float, default=10.0, help="that each fold or shard sleeps")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print("result", json.dumps(_child(options.work, options.slots[0], options.seconds, options.child)))
        return
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "made"
        if options.work == "folds":
            for job in ("ingest", "featurize"):
                _run([sys.executable, "-m", f"ray_jobs.{job}", *_settings(made)])
        for slots in options.slots:
            run = Path(name) / f"slots-{slots}"
            if made.exists():
                shutil.copytree(made, run)
            line = [sys.executable, "-m", "benchmarks.scaling", options.work, "--child", str(run)]
            told = _run([*line, "--slots", str(slots), "--seconds", str(options.seconds)])
            for what, seconds, slept in json.loads(told.splitlines()[-1].removeprefix("result ")):
                ideal = slept / slots
                late = f", {seconds - ideal:.1f} s above the ideal {ideal:.1f} s: {ideal / seconds:.1%}"
                print(f"{slots:2} slots, {what}: {seconds:.1f} s{late if slept else ''}", flush=True)


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


def _child(work: str, slots: int, seconds: float, run: str) -> list[tuple[str, float, float]]:
    """What was done on nodes of one CPU beside a head without, the seconds taken, and those that were slept in all."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(slots):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.wait_for_nodes()
        if work == "folds":
            taken = _train(Path(run), seconds)
            return [(f"{FOLDS} folds x {len(BOOSTERS)} boosters", taken, FOLDS * len(BOOSTERS) * seconds)]
        if work == "dispatch":
            _map([0.0] * slots)  # the workers' start is not what is measured
            return [(f"{count:,} shards without work", _map([0.0] * count), 0.0) for count in DISPATCHED]
        alike = [seconds] * SHARDS
        late = [*alike[1:], STRAGGLER * seconds]
        return [
            (f"{SHARDS} shards", _map(alike), sum(alike)),
            (f"{SHARDS} shards, the last {STRAGGLER} times as long", _map(late), sum(late)),
        ]
    finally:
        ray.shutdown()
        cluster.shutdown()


def _map(sleeps: list[float]) -> float:
    """Seconds that it takes to work on shards, each of which sleeps."""
    import ray.data

    from ray_jobs.shards import Item, map_shards

    ray.data.DataContext.get_current().enable_progress_bars = False

    def work(item: Item) -> list[Item]:
        time.sleep(item["seconds"])
        return [item]

    started = time.perf_counter()
    done = list(map_shards([{"seconds": seconds} for seconds in sleeps], work))
    assert len(done) == len(sleeps)
    return time.perf_counter() - started


def _train(run: Path, fold_seconds: float) -> float:
    """Seconds that train_boosters takes with folds that sleep."""
    import ray

    from ray_jobs.run import Run
    from ray_jobs.settings_file import load_settings
    from ray_jobs.train_boosters import train_boosters
    from train import fold_runner

    # Sent to the workers as it is here, with its engines made slow.
    fold_runner.engine_of = functools.partial(_slow_engine, fold_runner.engine_of, fold_seconds)
    ray.cloudpickle.register_pickle_by_value(fold_runner)
    config = (ROOT / "configs/demo.yaml").read_text(encoding="utf-8")
    started = time.perf_counter()
    train_boosters(Run(load_settings(config, "configs/demo.yaml", [f"run={run}", *SETTINGS])))
    return time.perf_counter() - started


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
