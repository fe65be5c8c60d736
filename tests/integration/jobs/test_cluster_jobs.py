"""Jobs on a cluster that they share: stopped through Ray, and two at the same time."""

import contextlib
import subprocess
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from core.lock import LOCK_FOLDER
from tests.helpers.commands import ROOT, job_line, ray_head
from votes import predictions

pytestmark = pytest.mark.slow

SMALL = [
    "data.synthetic.train_rows=150",
    "data.synthetic.test_rows=30",
    "data.folds=3",
    "data.shard_rows=60",
    "boosters=[{name: lightgbm, engine: lightgbm, rounds: 20}]",
    "llms=[{name: llama, demo: {architecture: llama}, max_tokens: 128}]",
]


def command(line, env):
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def submit(run, env, *flags):
    line = ["ray", "job", "submit", "--working-dir", ".", *flags, "--", "python", *job_line("pipeline", run, *SMALL)]
    return subprocess.Popen(line, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def engine_is_there():
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # others end meanwhile
            if "vLLMEngineStage" in "".join(child.cmdline()):
                return True
    return False


def test_a_job_that_is_stopped_gives_its_run_back_and_goes_on_later(tmp_path):
    run = tmp_path / "run"
    with ray_head(tmp_path, cpus=2, RAY_JOB_STOP_WAIT_TIME_S="60") as env:
        job = submit(run, env, "--submission-id", "first")
        while not (run / "tokens/llama/manifest.json").exists():
            assert job.poll() is None, job.stdout.read()
            time.sleep(0.05)
        while not engine_is_there():
            assert job.poll() is None, job.stdout.read()
            time.sleep(0.1)
        refused, _ = submit(run, env).communicate(timeout=120)
        assert "Ray job first, since" in refused, refused
        assert "another job uses this run" in refused
        stopped = command(["ray", "job", "stop", "first"], env)
        assert "was stopped" in stopped.stdout, stopped.stdout + stopped.stderr
        told, _ = job.communicate(timeout=60)
        assert "stopped; run the same command again to resume" in told
        assert "Traceback" not in told
        assert not list(run.glob(f"{LOCK_FOLDER}/*"))
        assert not (run / "blend").exists()
        told, _ = submit(run, env).communicate(timeout=600)
        assert "succeeded" in told, told[-3000:]
        assert (run / "blend/submission.csv").exists()


def test_two_pipelines_at_once_do_not_disturb_each_other(tmp_path):
    runs = [tmp_path / "one", tmp_path / "two"]
    with ray_head(tmp_path, cpus=3) as env:
        for job in [submit(run, env) for run in runs]:
            told, _ = job.communicate(timeout=900)
            assert "succeeded" in told, told[-3000:]
    for split in ("train", "test"):
        one, two = (run / f"predictions/lightgbm/{split}.parquet" for run in runs)
        assert one.read_bytes() == two.read_bytes()
        one, two = (pq.read_table(run / f"predictions/llama/{split}.parquet") for run in runs)
        assert one["id"].equals(two["id"])
        np.testing.assert_allclose(
            predictions.probabilities_from_table(one), predictions.probabilities_from_table(two), atol=1e-5
        )
