"""Ten folds of two boosters on clusters of every small size: no deadlock, no time-out, a reason while waiting."""

import subprocess
import sys
import time

import pytest

from tests.helpers.commands import ROOT, job_line, ray_head, run_job

pytestmark = pytest.mark.slow

SMALL = [
    "data.synthetic={train_rows: 300, test_rows: 20}",
    "data.shard_rows=100",
    "featurize.families=all",
    "boosters.lightgbm.rounds=20",
    "boosters.xgboost.rounds=20",
]
HOLD = """
import sys, time, ray
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=1)
def hold(seconds):
    time.sleep(seconds)
reference = hold.remote(float(sys.argv[1]))
print("held", flush=True)
ray.get(reference)
"""


@pytest.fixture(scope="module")
def featurized(tmp_path_factory):
    run = tmp_path_factory.mktemp("capacity") / "run"
    for job in ("ingest", "featurize"):
        done = run_job(job, run, *SMALL)
        assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_all_folds_train_on_any_number_of_cpus(featurized, cpus):
    made = featurized.parent / f"run-{cpus}"
    subprocess.run(["cp", "-r", featurized, made], check=True)
    done = run_job("train_boosters", made, *SMALL, f"ray.cpus={cpus}")
    assert done.returncode == 0, done.stderr
    assert len(list(made.glob("models/*/fold-*/manifest.json"))) == 20


def test_the_only_cpu_is_taken_for_three_minutes(featurized, tmp_path):
    with ray_head(tmp_path, cpus=1) as env:
        line = [sys.executable, "-c", HOLD, "180"]
        holder = subprocess.Popen(line, env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        time.sleep(5)
        start = time.monotonic()
        address = env | {"RAY_ADDRESS": "auto"}
        job = subprocess.run(
            [sys.executable, *job_line("train_boosters", featurized, *SMALL)],
            cwd=ROOT, env=address, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert job.returncode == 0, job.stderr
        assert holder.wait(timeout=60) == 0
    assert time.monotonic() - start > 150
    said = [row for row in job.stderr.splitlines() if "0 of 1" in row]
    assert len(said) >= 10
    assert len(list(featurized.glob("models/*/fold-*/manifest.json"))) == 20
