"""Measure the resources of each stage at three sizes, and extrapolate to a million and a hundred million records.

Run as: python -m benchmarks.capacity --rows 1000 5000 20000
(prints tables in Markdown)

Records are all records of a run: four in five have votes, the others are only scored. Stages on CPUs are measured:
core-seconds and memory of all processes of the job, including Ray's, and the bytes that the stage writes. A straight
line through the two largest sizes gives the fixed cost of a job and the cost per 1,000 records. Growth is the ratio of
the two slopes; above 1, the line underestimates much larger sizes. Language models are estimated from their shapes:
operations per token, as `score_llm --dry-run` counts them, at a share of the chip's peak.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.featurize import ROOT, SHARED
from benchmarks.process_tree import measure
from core.settings.cluster import Plan
from core.stage import read_manifest
from core.storage import Folder

STAGE_FOLDERS = {
    "ingest": ["records"],
    "featurize": ["features"],
    "train_boosters": ["models/lightgbm", "models/xgboost", "predictions/lightgbm", "predictions/xgboost"],
    "blend": ["blend"],
    "report": ["report"],
}
TARGETS = (1_000_000, 100_000_000)
# cluster.yaml's node types: cores or GPUs, approximate dollars per hour on spot, and memory.
CPU_NODE, GPU_NODE, NODE_GIB = (16, 0.30), (1, 1.20), 64
HOURS = 8.0  # deadline of the work
SHARD = 2048
# Cores that a stage can use: one per shard or per fold of a booster; blend and report aggregate on one core.
WIDTH: dict[str, Callable[[int], float]] = {
    "ingest": lambda records: records / SHARD,
    "featurize": lambda records: records / SHARD,
    "train_boosters": lambda records: 20,
    "blend": lambda records: 1,
    "report": lambda records: 1,
}
GIB = 2**30
SETTINGS = ["ray.cpus=2", "llms=[]", f"data.shard_rows={SHARD}"]  # the demo's features and boosters
# Parameters multiplied per token, layers and width of attention, from the models' published configurations.
SHAPES = {"Gemma-2-9b": (8.3e9, 42, 4096), "Llama-3-8b": (7.0e9, 32, 4096)}
L40S_TFLOPS = 362.0  # NVIDIA's data sheet, dense bfloat16


@dataclass(frozen=True)
class Cost:
    """The resources of a job at one size."""

    core_seconds: float
    bytes: int  # written
    peak_bytes: int  # of memory, on 2 cores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=3, default=[1000, 5000, 20000])
    parser.add_argument(
        "--tokens", type=float, default=1000.0, help="tokens per record and order; `score_llm --dry-run` counts them"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        costs = {rows: _costs(Path(name), rows) for rows in options.rows}
    _print_measured(costs)
    _print_extrapolated(costs, options.tokens)


def _costs(folder: Path, rows: int) -> dict[str, Cost]:
    run = folder / f"run-{rows}"
    overrides = [f"run={run}", *SETTINGS]
    test = rows // 5
    if SHARED.exists():
        subprocess.run([sys.executable, SHARED, folder, str(rows - test), str(test)], check=True, capture_output=True)
        overrides += [f"data.train={folder}/train.csv", f"data.test={folder}/test.csv"]
    else:
        overrides += [f"data.synthetic.train_rows={rows - test}", f"data.synthetic.test_rows={test}"]
    costs = {}
    for job, folders in STAGE_FOLDERS.items():
        line = [sys.executable, "-m", f"ray_jobs.{job}", "--config", str(ROOT / "configs/demo.yaml")]
        for override in overrides:
            line += ["--set", override]
        usage = measure(line)
        manifests = [read_manifest(Folder(str(run / folder))) or {"files": {}} for folder in folders]
        written = sum(sum(manifest["files"].values()) for manifest in manifests)
        costs[job] = Cost(usage.core_seconds, written, usage.peak_bytes)
        print(f"{rows:,} records, {job}: {usage.core_seconds:.0f} core-seconds", file=sys.stderr, flush=True)
    return costs


def _slope(costs: dict[int, dict[str, Cost]], job: str, between: Sequence[int], field: str = "core_seconds") -> float:
    """Return the core-seconds, or bytes of memory, that each record adds between two sizes."""
    first, second = between
    return float((getattr(costs[second][job], field) - getattr(costs[first][job], field)) / (second - first))


def _print_measured(costs: dict[int, dict[str, Cost]]) -> None:
    sizes = sorted(costs)
    print("| stage | " + " | ".join(f"core-s at {rows:,}" for rows in sizes), end="")
    print(" | core-s per job | core-s per 1,000 more | growth | MB written per 1,000 | peak GiB", end="")
    print(f" | records that fit into {NODE_GIB} GiB, {CPU_NODE[0]} processes | 2 processes |")
    print("|---|" + "---|" * (len(sizes) + 7))
    for job in STAGE_FOLDERS:
        slope = _slope(costs, job, sizes[1:])
        fixed = costs[sizes[-1]][job].core_seconds - slope * sizes[-1]
        before = _slope(costs, job, sizes[:2])
        growth = f"{slope / before:.2f}" if min(slope, before) > 0 else "-"  # within noise
        size = costs[sizes[-1]][job].bytes / sizes[-1] / 1e3
        peaks = ", ".join(f"{costs[rows][job].peak_bytes / GIB:.2f}" for rows in sizes)
        seconds = " | ".join(f"{costs[rows][job].core_seconds:.0f}" for rows in sizes)
        fitting = " | ".join(_holds(costs, job, processes) for processes in (min(CPU_NODE[0], WIDTH[job](10**9)), 2))
        print(f"| {job} | {seconds} | {fixed:.0f} | {1000 * slope:.2f} | {growth} | {size:.2f} | {peaks} | {fitting} |")


def _print_extrapolated(costs: dict[int, dict[str, Cost]], tokens: float) -> None:
    sizes = sorted(costs)
    plan = Plan()
    print(f"\n| stage | {' | '.join(f'{rows:,} records' for rows in TARGETS)} |")
    print("|---|" + "---|" * len(TARGETS))
    totals = [0.0] * len(TARGETS)
    for job in STAGE_FOLDERS:
        cells = []
        for n, rows in enumerate(TARGETS):
            hours = max(_slope(costs, job, sizes[1:]), 0) * rows / 3600
            cores = min(max(hours / HOURS, 1), WIDTH[job](rows))
            nodes = math.ceil(cores / CPU_NODE[0])
            size = costs[sizes[-1]][job].bytes / sizes[-1] * rows / 1e9
            gib = _memory(costs, job, rows, min(cores / nodes, CPU_NODE[0]))
            fits = gib < NODE_GIB
            totals[n] += hours / CPU_NODE[0] * CPU_NODE[1] if fits else 0
            cells.append(
                f"{hours:,.1f} core-hours: {hours / cores:,.1f} h on {_count(cores, 'core')}, {_count(nodes, 'node')}, "
                f"{gib:,.0f} GiB{'' if fits else ' (**does not fit**)'}; writes {size:,.1f} GB"
            )
        print(f"| {job} | {' | '.join(cells)} |")
    for name, (parameters, layers, width) in SHAPES.items():
        operations = 2 * parameters + 4.0 * layers * width * tokens
        per_token = operations / (L40S_TFLOPS * 1e12 * plan.mfu)
        cells = []
        for n, rows in enumerate(TARGETS):
            hours = per_token * 2 * tokens * rows / 3600  # both orders
            totals[n] += hours * GPU_NODE[1]
            cells.append(f"{hours:,.0f} GPU-hours: {math.ceil(hours / HOURS):,} GPUs for {HOURS:g} h")
        print(f"| score_llm, {name} ({1000 * per_token:.4f} GPU-s per 1,000 tokens) | {' | '.join(cells)} |")
    print(f"| total, on spot | {' | '.join(f'about {total:,.0f} $' for total in totals)} |")
    print(
        "\nNot included: stages that do not fit, searches, encoders and fine-tuning (their jobs' --dry-run), the head, "
        "starting and idle nodes, storage and traffic. Fine-tuned language models score test records once per fold."
    )


def _memory(costs: dict[int, dict[str, Cost]], job: str, rows: int, processes: float) -> float:
    """Return the most GiB that a stage needs on a node, scaled from 2 processes that share nothing."""
    largest = max(costs)
    return (costs[largest][job].peak_bytes / GIB + _growth(costs, job) * (rows - largest)) * max(processes / 2, 1)


def _holds(costs: dict[int, dict[str, Cost]], job: str, processes: float) -> str:
    """Return the number of records of a stage that fit if this many processes share a node."""
    growth, largest = _growth(costs, job), max(costs)
    if not growth:
        return "any"
    room = NODE_GIB / max(processes / 2, 1) - costs[largest][job].peak_bytes / GIB
    return f"{largest + room / growth:,.0f}"


def _growth(costs: dict[int, dict[str, Cost]], job: str) -> float:
    """Return the GiB that each record adds to two processes: 0 for ingest and featurize, which hold one shard each."""
    if job in ("ingest", "featurize"):
        return 0.0
    return max(_slope(costs, job, sorted(costs)[1:], field="peak_bytes"), 0) / GIB


def _count(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}{'' if round(number) == 1 else 's'}"


if __name__ == "__main__":
    main()
