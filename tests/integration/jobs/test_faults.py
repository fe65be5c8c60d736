"""Killing a run in the middle: finished folds and shards are kept, and the result is that of an undisturbed run."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.commands import ROOT, environment, job_line, run_job
from tests.helpers.tiny_models import MAX_TOKENS, tiny_model
from votes.schema import PROBABILITIES

pytestmark = pytest.mark.slow

SMALL = ["data.synthetic.train_rows=400", "data.synthetic.test_rows=100", "data.shard_rows=100", "data.folds=6"]


def kill_when(line, condition, seconds=400, sent=signal.SIGKILL):
    """Start a job in a session of its own, signal its driver once `condition()` holds, and wait for its workers."""
    with subprocess.Popen(
        [sys.executable, *line], cwd=ROOT, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        # What a shell starts in the background ignores SIGINT, and so would the driver.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as driver:  # fmt: skip
        end = time.monotonic() + seconds
        while not condition():
            assert driver.poll() is None, "the job ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(driver.pid, sent)
    time.sleep(5)  # Ray's processes notice that their driver is gone


def stamps(paths):
    return {path: path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("booster", ["lightgbm", "xgboost"])
def test_killed_in_the_middle_of_the_folds(tmp_path, undisturbed, booster):
    run = tmp_path / "run"

    def finished():
        return sorted((run / f"models/{booster}").glob("fold-*/manifest.json"))

    kill_when(job_line("pipeline", run, *SMALL), lambda: len(finished()) >= 2)
    kept = stamps(finished())
    assert 2 <= len(kept) < 6
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)}/6 folds already finished, resuming" in done.stderr
    assert stamps(kept) == kept
    for name in ("lightgbm", "xgboost"):
        for split in ("train", "test"):
            file = f"predictions/{name}/{split}.parquet"
            # Two runs in two folders: the fingerprints agree, so the files agree to the byte.
            assert (run / file).read_bytes() == (undisturbed / file).read_bytes()


def test_killed_in_the_middle_of_scoring(tmp_path, undisturbed):
    run = tmp_path / "run"

    def finished():
        return sorted((run / "predictions/llama/shards").rglob("*.parquet"))

    kill_when(job_line("pipeline", run, *SMALL), lambda: len(finished()) >= 1)
    kept = stamps(finished())
    assert 1 <= len(kept) < 10
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "requests have replies already, resuming" in done.stderr
    assert stamps(kept) == kept
    for name in ("gemma", "llama"):
        for split in ("train", "test"):
            mine, theirs = (pq.read_table(root / f"predictions/{name}/{split}.parquet") for root in (run, undisturbed))
            assert mine["id"].equals(theirs["id"])
            for column in PROBABILITIES[:3]:
                assert abs(mine[column].to_numpy() - theirs[column].to_numpy()).max() < 1e-5


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])  # Ray Tune takes SIGINT for an early end
def test_killed_in_the_middle_of_a_search(tmp_path, sent):
    search = "tune=[{booster: xgboost, trials: 6, folds: 6, grace_rounds: 100}]"
    overrides = [*SMALL, "boosters.xgboost.rounds=100", "boosters.xgboost.early_stopping_rounds=null", search]
    runs = [tmp_path / "undisturbed", tmp_path / "killed"]
    for run in runs:
        for job in ("ingest", "featurize"):
            assert run_job(job, run, *overrides).returncode == 0
    done = run_job("tune", runs[0], *overrides)
    assert done.returncode == 0, done.stderr

    def finished():
        return sorted((runs[1] / "tune/xgboost/trials").glob("*.json"))

    kill_when(job_line("tune", runs[1], *overrides), lambda: len(finished()) >= 2, sent=sent)
    kept = stamps(finished())
    assert 2 <= len(kept) < 6
    assert not (runs[1] / "tune/xgboost/manifest.json").exists()
    done = run_job("tune", runs[1], *overrides)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)}/6 trials already finished, resuming" in done.stderr
    assert stamps(kept) == kept

    def losses(run):
        with (run / "tune/xgboost/trials.csv").open(newline="") as file:
            return [(row["trial"], row["log_loss"], row["eta"]) for row in csv.DictReader(file)]

    assert losses(runs[0]) == losses(runs[1])
    best = [(run / "tune/xgboost/best.json").read_text() for run in runs]
    assert best[0] == best[1]


def undisturbed_and_killed(folder, job, settings, fold):
    """Two runs of a fine-tuning job, the second one killed in the second stage and started again."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    runs = [folder / "undisturbed", folder / "killed"]
    state = runs[1] / fold / "checkpoint/state.json"
    for run in runs:
        assert run_job("ingest", run, config=str(config)).returncode == 0
        if run == runs[1]:
            kill_when(
                job_line(job, run, config=str(config)),
                lambda: state.exists() and json.loads(state.read_text())["stage"] == 1,
            )
            assert not (run / fold / "manifest.json").exists()
        done = run_job(job, run, config=str(config))
        assert done.returncode == 0, done.stderr
        assert ("stage 1, epoch 1" in done.stderr) == (run == runs[0])
    return runs


def assert_same(one, other):
    key = "id" if "id" in one.column_names else "row"
    assert one[key].equals(other[key])
    for name in PROBABILITIES[:3]:
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-6)


def test_killed_in_the_middle_of_fine_tuning(tmp_path):
    settings = {
        "run": "runs/unused",
        "data": {"synthetic": {"train_rows": 240, "test_rows": 10}, "folds": 3, "shard_rows": 100},
        "finetune": {
            "encoders": [
                {
                    "name": "encoder",
                    "scratch": {"architecture": "deberta-v2", "layers": 2, "hidden": 32, "heads": 1, "vocabulary": 600},
                    "max_tokens": 96,
                    "folds": [0],
                    "num_workers": 2,
                    "global_batch_size": 4,
                    "max_tokens_per_microbatch": 400,
                    "stages": [
                        {"train": "head", "epochs": 1, "learning_rate": 1e-3},
                        {"train": 1, "epochs": 2, "learning_rate": 1e-3},
                        # Long enough for the kill on a busy machine: workers see their driver's death after seconds.
                        {"train": "all", "epochs": 3, "learning_rate": 1e-3},
                    ],
                }
            ],
        },
    }
    runs = undisturbed_and_killed(tmp_path, "train_encoder", settings, "models/encoder/fold-0")
    for split in ("train", "test"):
        assert_same(*(pq.read_table(run / f"predictions/encoder/{split}.parquet") for run in runs))


@pytest.mark.parametrize("architecture", ["gemma2", "llama"])
def test_killed_in_the_middle_of_fine_tuning_with_adapters(tmp_path, architecture):
    settings = {
        "run": "runs/unused",
        "data": {"synthetic": {"train_rows": 96, "test_rows": 10}, "folds": 3, "shard_rows": 50},
        "finetune": {
            "llms": [
                {
                    "name": "lora",
                    "model": str(tiny_model(tmp_path / "model", architecture)),
                    "max_tokens": MAX_TOKENS,
                    "folds": [1],
                    "num_workers": 2,
                    "global_batch_size": 4,
                    "dtype": "float32",
                    "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
                    "stages": [{"epochs": 1, "learning_rate": 0.01}, {"epochs": 8, "learning_rate": 0.003}],
                }
            ],
        },
    }
    runs = undisturbed_and_killed(tmp_path, "train_llm", settings, "models/lora/fold-1")
    assert_same(*(pq.read_table(run / "models/lora/fold-1/out_of_fold.parquet") for run in runs))
