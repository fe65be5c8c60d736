"""Measure how work scales on clusters of virtual nodes, compared with the ideal.

Run as: python -m benchmarks.scaling folds --slots 1 2 5 10 20 --seconds 230
        python -m benchmarks.scaling shards --slots 2 5 10 20 --seconds 10
        python -m benchmarks.scaling dispatch --slots 2

Virtual nodes share one machine, so a fold or a shard is a fixed sleep. All other code is the product's own, including
the start of all nodes' processes on one machine. Use a machine with about as many cores as slots, or sleeps that are
long compared with this start. A node has --node-cpus CPUs, one per slot. Ray starts at most as many processes in
parallel on a node as it has CPUs, so the processes of a single slot start in sequence.

folds: train_boosters with 10 folds of 2 boosters, with its slots, backends, checkpoints and files. A fold trains a few
trees and sleeps for the rest of its time. The sleeping engines come from a plugin.
shards: 40 shards under Ray Data, as in every stage without labels. The first case has equal shards. In the second case
the last shard takes four times as long, which is the worst case of a straggler.
dispatch: empty shards, to measure their cost in the driver and the scheduler, and its growth.

The ideal time is the seconds of all folds or shards divided by the slots, but at least the longest one. Time is
measured from the call to its end, in a process that has joined the cluster.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.featurize import ROOT
from core.registry import load_plugins

FOLDS, BOOSTERS = 10, ("lightgbm", "xgboost")
SHARDS, STRAGGLER = 40, 4
DISPATCHED = (1000, 10_000)
# Engines whose folds take SECONDS, from their start to the importance, which is the last call of an engine per fold.
SLOW_ENGINES = """
import time

from core.registry import ENGINES


def add_slow_engine(base):
    class SlowEngine(type(ENGINES.get(base))):
        name = f"slow_{base}"

        def start(self, *arguments):
            self.end = time.monotonic() + SECONDS
            return super().start(*arguments)

        def importance(self, *arguments):
            values = super().importance(*arguments)
            time.sleep(max(self.end - time.monotonic(), 0))
            return values

    ENGINES.register(SlowEngine)


for base in ("lightgbm", "xgboost"):
    add_slow_engine(base)
"""
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
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each fold or shard")
    parser.add_argument("--node-cpus", type=int, default=4, help="CPUs of a virtual node; the last node has the rest")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print("result", json.dumps(_child(options)))
        return
    with tempfile.TemporaryDirectory() as name:
        features = Path(name) / "features"
        if options.work == "folds":
            for job in ("ingest", "featurize"):
                _run([sys.executable, "-m", f"ray_jobs.{job}", *_settings(features)])
        for slots in options.slots:
            run = Path(name) / f"slots-{slots}"
            if features.exists():
                shutil.copytree(features, run)
            line = [sys.executable, "-m", "benchmarks.scaling", options.work, "--child", str(run)]
            line += ["--slots", str(slots), "--seconds", str(options.seconds), "--node-cpus", str(options.node_cpus)]
            output = _run(line)
            for title, seconds, parts in json.loads(output.splitlines()[-1].removeprefix("result ")):
                ideal = max(sum(parts) / slots, max(parts))
                above = f", {seconds - ideal:.1f} s above the ideal {ideal:.1f} s: {ideal / seconds:.1%}"
                print(f"{slots:2} slots, {title}: {seconds:.1f} s{above if ideal else ''}", flush=True)


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


def _child(options: argparse.Namespace) -> list[tuple[str, float, list[float]]]:
    """Run the work on virtual nodes and a head without CPUs; return titles, seconds, and the seconds of the parts."""
    import ray
    from ray.cluster_utils import Cluster

    work, slots, seconds = options.work, options.slots[0], options.seconds
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for node in range(0, slots, options.node_cpus):
            cluster.add_node(num_cpus=min(options.node_cpus, slots - node))
        plugins = {"tiebreak_plugin_slow": SLOW_ENGINES.replace("SECONDS", str(seconds))}
        load_plugins(plugins)

        def setup() -> None:
            load_plugins(plugins)

        hook = {"worker_process_setup_hook": setup}
        ray.init(address=cluster.address, log_to_driver=False, runtime_env=hook)
        cluster.wait_for_nodes()
        if work == "folds":
            trained = _train(Path(options.child))
            return [(f"{FOLDS} folds x {len(BOOSTERS)} boosters", trained, [seconds] * FOLDS * len(BOOSTERS))]
        if work == "dispatch":
            _map([0.0] * slots)  # start the workers without measuring it
            return [(f"{count:,} shards without work", _map([0.0] * count), [0.0]) for count in DISPATCHED]
        equal = [seconds] * SHARDS
        straggling = [*equal[1:], STRAGGLER * seconds]
        return [
            (f"{SHARDS} shards", _map(equal), equal),
            (f"{SHARDS} shards, the last {STRAGGLER} times as long", _map(straggling), straggling),
        ]
    finally:
        ray.shutdown()
        cluster.shutdown()


def _map(sleeps: list[float]) -> float:
    """Return the seconds to map shards that sleep."""
    import ray.data

    from core.shards import Item, map_shards

    ray.data.DataContext.get_current().enable_progress_bars = False

    def work(item: Item) -> list[Item]:
        time.sleep(item["seconds"])
        return [item]

    started = time.perf_counter()
    done = list(map_shards([{"seconds": seconds} for seconds in sleeps], work))
    assert len(done) == len(sleeps)
    return time.perf_counter() - started


def _train(run: Path) -> float:
    """Return the seconds of train_boosters with folds that sleep."""
    from core.run import Run
    from core.settings.loader import load_settings
    from ray_jobs.train_boosters import train_boosters

    slow = [f"boosters.{engine}.engine=slow_{engine}" for engine in BOOSTERS]
    config = (ROOT / "configs/demo.yaml").read_text(encoding="utf-8")
    started = time.perf_counter()
    train_boosters(Run(load_settings(config, "configs/demo.yaml", [f"run={run}", *SETTINGS, *slow])))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
