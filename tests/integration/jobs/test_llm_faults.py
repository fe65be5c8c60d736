"""Killing parts of scoring in the middle of 1,000 records, one of them poisoned: each is scored once, to one end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from demo.generator import generate_pairs
from tests.helpers.commands import ROOT, environment
from tests.helpers.tiny_llms import MAX_TOKENS, make_checkpoint
from votes import predictions
from votes.schema import TEXTS

pytestmark = pytest.mark.slow
ROWS, TEST_ROWS, TOO_LONG = 800, 200, 437
POISON = 612
PLUGIN = """
import collections, os, signal

def register():
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    execute = GPUModelRunner.execute_model

    def deadly(self, scheduled, *args, **kwargs):
        for request in scheduled.scheduled_new_reqs:
            if collections.Counter(request.prompt_token_ids).most_common(1)[0][1] > 180:
                os.kill(os.getpid(), signal.SIGKILL)
        return execute(self, scheduled, *args, **kwargs)

    GPUModelRunner.execute_model = deadly
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    folder = tmp_path_factory.mktemp("llm-faults")
    for split, rows in (("train", ROWS), ("test", TEST_ROWS)):
        table = generate_pairs(rows, seed=3, stream=split).table.to_pandas()
        for text in TEXTS:
            table[text] = [json.dumps([turn and turn[:40] for turn in json.loads(turns)[:1]]) for turns in table[text]]
        if split == "train":
            table.loc[TOO_LONG, "response_a"] = json.dumps(["word " * 400])
            table.loc[POISON, "response_a"] = json.dumps(["z" * 200])
        table.to_csv(folder / f"{split}.csv", index=False, quoting=csv.QUOTE_ALL)
    settings = {
        "run": "set by the test",
        "data": {
            "train": str(folder / "train.csv"),
            "test": str(folder / "test.csv"),
            "folds": 3,
            "shard_rows": 100,
        },
        "llms": [
            {
                "name": "llm",
                "checkpoint": make_checkpoint(folder / "model", "Llama"),
                "max_tokens": MAX_TOKENS,
                "swap": "none",
                "batch_size": 16,
                # One sequence at a time, so that there is a middle; fewer tokens than the poisoned record has.
                "engine_args": {"max_num_seqs": 1, "max_model_len": 450},
            }
        ],
        "ray": {"cpus": 2},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def line(job: str, config: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", f"ray_jobs.{job}", "--config", str(config), "--set", f"run={run}"]


def start(config: Path, run: Path, **changes: str) -> "subprocess.Popen[str]":
    done = subprocess.run(line("ingest", config, run), cwd=ROOT, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return subprocess.Popen(
        line("score_llm", config, run),
        cwd=ROOT,
        env=environment(**changes),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def shards(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (run / "predictions/llm/shards").rglob("*.parquet")}


def in_the_middle(job: "subprocess.Popen[str]", run: Path) -> dict[Path, int]:
    end = time.monotonic() + 300
    while len(shards(run)) < 2:
        assert job.poll() is None, job.stderr and job.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    kept = shards(run)
    assert len(kept) < (ROWS + TEST_ROWS) // 100, "too late: every shard is there"
    return kept


def workers(job: "subprocess.Popen[str]", wanted: Callable[[str], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(job.pid).children(recursive=True):
        try:
            if wanted(" ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def check_complete(config: Path, run: Path, more: Mapping[int, str] | None = None) -> None:
    """Each record is scored once, but for those in quarantine with their reason: the poisoned one, and more."""
    failing = {TOO_LONG: "450", **(more or {})}
    for split in ("train", "test"):
        with open(config.parent / f"{split}.csv", encoding="utf-8", newline="") as file:
            ids = [row["id"] for row in csv.DictReader(file)]
        lost = {ids[row]: reason for row, reason in failing.items()} if split == "train" else {}
        scored = pq.read_table(run / f"predictions/llm/{split}.parquet")
        assert scored["id"].to_pylist() == [each for each in ids if each not in lost]
        if lost:
            quarantined = pq.read_table(run / "predictions/llm/quarantine.parquet").to_pylist()
            assert {(row["split"], row["id"]) for row in quarantined} == {(split, each) for each in lost}
            assert all(lost[row["id"]] in row["reason"] for row in quarantined)


def check_same(run: Path, undisturbed: Path) -> None:
    for split in ("train", "test"):
        ours, expected = (
            predictions.probabilities_from_table(pq.read_table(each / f"predictions/llm/{split}.parquet"))
            for each in (run, undisturbed)
        )
        np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("llm-undisturbed") / "run"
    job = start(config, run)
    _, told = job.communicate(timeout=400)
    assert job.returncode == 0, told
    check_complete(config, run)
    return run


@pytest.mark.parametrize("part", ["MapBatches(vLLMEngineStageUDF)", "EngineCore"])
def test_a_killed_actor_or_engine_is_started_again(part: str, config: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = start(config, run)
    kept = in_the_middle(job, run)
    victims = workers(job, lambda command: part in command)
    assert victims
    for victim in victims:
        victim.kill()
    _, told = job.communicate(timeout=500)
    assert job.returncode == 0, told
    assert {path: stamp for path, stamp in shards(run).items() if path in kept} == kept
    check_complete(config, run)
    check_same(run, undisturbed)


def test_a_killed_driver_scores_nothing_again_that_was_finished(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = start(config, run)
    in_the_middle(job, run)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    time.sleep(5)  # Ray's processes notice that their driver is gone
    kept = shards(run)
    done = subprocess.run(line("score_llm", config, run), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "requests have replies already, resuming" in done.stderr
    assert {path: stamp for path, stamp in shards(run).items() if path in kept} == kept
    check_complete(config, run)
    check_same(run, undisturbed)


@pytest.mark.timeout(1500)  # some ten starts of an engine
def test_a_record_that_kills_every_engine_ends_in_quarantine_alone(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "deadly-1.dist-info").mkdir()
    (tmp_path / "deadly-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (tmp_path / "deadly-1.dist-info/entry_points.txt").write_text("[vllm.general_plugins]\ndeadly = deadly:register\n")
    (tmp_path / "deadly.py").write_text(PLUGIN)
    run = tmp_path / "run"
    job = start(config, run, PYTHONPATH=str(tmp_path))
    _, told = job.communicate(timeout=1400)
    assert job.returncode == 0, told
    assert told.count("the engine crashed on a single request again") == 1
    check_complete(config, run, {POISON: "the engine crashed twice"})
    ours, expected = (pq.read_table(each / "predictions/llm/train.parquet") for each in (run, undisturbed))
    kept = pc.is_in(expected["id"], ours["id"].combine_chunks())
    np.testing.assert_allclose(
        predictions.probabilities_from_table(ours),
        predictions.probabilities_from_table(expected.filter(kept)),
        atol=1e-6,
    )
