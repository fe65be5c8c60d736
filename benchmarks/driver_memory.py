"""Measure the peak memory of each job's driver at two sizes. It must not grow with the data, which workers hold.

Run as: python -m benchmarks.driver_memory --rows 5000 57477
(--jobs ingest featurize ... measures some jobs, in an order in which they can run)

A job's driver is the process that its command starts. Its peak is Linux's VmHWM, without Ray's processes and other
child processes.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.featurize import ROOT, SHARED

JOBS = ["ingest", "featurize", "tune", "train_boosters", "train_encoder", "score_llm", "train_llm"]
JOBS += ["blend", "report", "predict"]
LORA = (  # on the demo model that score_llm builds
    "finetune.llms=[{{name: lora, model: {run}/demo/llm-llama, max_tokens: 128, dtype: float32, "
    "global_batch_size: 128, folds: [0], stages: [{{epochs: 1, learning_rate: 1.0e-3}}]}}]"
)
SEARCH = "tune=[{booster: lightgbm, trials: 2, folds: 2}]"
TEST_ROWS = 4  # training rows per test row
# Small models, since only the number of records matters here.
SETTINGS = [
    "boosters=[{name: lightgbm, engine: lightgbm, rounds: 5}]",
    "finetune.encoders=[{name: encoder, scratch: {layers: 1, hidden: 32, heads: 1, vocabulary: 600}, max_tokens: 128, "
    "global_batch_size: 128, folds: [0], stages: [{train: all, epochs: 1, learning_rate: 1.0e-3}]}]",
    "llms=[{name: llama, demo: {architecture: llama}, max_tokens: 64}]",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=[5000, 57477])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        peaks = [_peaks(Path(name), rows, options.jobs) for rows in options.rows]
    print(f"{'job':<15} {options.rows[0]:>8,} rows {options.rows[1]:>8,} rows  ratio   (MiB)")
    for job in options.jobs:
        few, many = (peaks_at_size[job] / 2**20 for peaks_at_size in peaks)
        print(f"{job:<15} {few:13.0f} {many:13.0f}  {many / few:5.2f}")


def _peaks(folder: Path, rows: int, jobs: list[str]) -> dict[str, int]:
    run = folder / f"run-{rows}"
    settings = [f"run={run}", *SETTINGS, SEARCH if "tune" in jobs else "tune=[]"]
    settings += [LORA.format(run=run)] if "train_llm" in jobs else []
    if SHARED.exists():
        subprocess.run(
            [sys.executable, SHARED, folder, str(rows), str(rows // TEST_ROWS)], check=True, capture_output=True
        )
        data = [f"data.train={folder}/train.csv", f"data.test={folder}/test.csv"]
    else:
        data = [f"data.synthetic.train_rows={rows}", f"data.synthetic.test_rows={rows // TEST_ROWS}"]
    peaks = {}
    for job in jobs:
        if job == "predict":
            pairs = folder / "test.csv" if SHARED.exists() else run / "demo/pairs/test.csv"
            peaks[job] = _peak(job, str(run / "settings.json"), [f"data.test={pairs}"])
        else:
            peaks[job] = _peak(job, "configs/demo.yaml", [*settings, *data])
        print(f"{rows:,} rows, {job}: {peaks[job] / 2**20:.0f} MiB", file=sys.stderr, flush=True)
    shutil.rmtree(run)
    return peaks


def _peak(job: str, config: str, overrides: list[str]) -> int:
    """Return the peak memory of the job's driver in bytes."""
    line = [sys.executable, "-m", f"ray_jobs.{job}", "--config", config]
    for override in overrides:
        line += ["--set", override]
    with tempfile.TemporaryFile() as log:
        driver = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
        peak = 0
        while driver.poll() is None:
            match = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{driver.pid}/status").read_text(encoding="utf-8"))
            peak = max(peak, 1024 * int(match[1]) if match else 0)  # a process that has ended has none
            time.sleep(0.2)
        if driver.returncode:
            log.seek(0)
            raise SystemExit(f"{job} failed: {log.read().decode(errors='replace')[-4000:]}")
    return peak


if __name__ == "__main__":
    main()
