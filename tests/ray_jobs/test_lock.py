"""One job at a time in a run's folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from preference.errors import InputError
from ray_jobs import lock
from ray_jobs.lock import LOCK, locked
from ray_jobs.storage import Folder

from .commands import ROOT, run_job

HOLD = """
import signal, sys, time
from ray_jobs import lock
from ray_jobs.storage import Folder

lock.BEAT_S = 0.2
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray_jobs.cli does
try:
    with lock.locked(Folder(sys.argv[1]), "pipeline"):
        started = time.time()
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
        print(started, time.time(), flush=True)
except lock.InputError:
    print("refused", flush=True)
except lock.TakenOverError as error:
    print(error, flush=True)
"""


def hold(run: Path, seconds: float) -> "subprocess.Popen[str]":
    line = [sys.executable, "-c", HOLD, str(run), str(seconds)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def owner(tmp_path):
    with hold(tmp_path / "run", 60) as process:
        assert said(process) == "held"
        yield process
        process.kill()


def claim(run: Path, host: str, silent: float) -> Path:
    path = run / LOCK / "other.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"owner": "ada", "host": host, "pid": 1, "job": "blend", "since": "then"}))
    os.utime(path, (time.time() - silent,) * 2)
    return path


def test_the_second_is_refused_with_the_owners_name_until_the_first_is_gone(tmp_path, owner):
    run = Folder(str(tmp_path / "run"))
    with pytest.raises(InputError, match=rf"process {owner.pid}, pipeline, since 2.*--take-over"), locked(run, "blend"):
        pass
    with locked(Folder(str(tmp_path / "another")), "blend"):
        pass
    owner.kill()
    owner.wait()
    with locked(run, "blend"):
        pass
    assert not list(tmp_path.glob(f"run/{LOCK}/*"))
    assert not (tmp_path / "another").exists()


def test_the_command_line_refuses_and_takes_over(tmp_path, owner):
    small = ["data.synthetic.train_rows=40", "data.synthetic.test_rows=10", "data.folds=2"]
    refused = run_job("ingest", tmp_path / "run", *small)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert f"process {owner.pid}" in refused.stderr
    threading.Thread(target=owner.wait).start()  # else it would stay as a zombie
    taken = run_job("ingest", tmp_path / "run", *small, flags=["--take-over"])
    assert taken.returncode == 0, taken.stderr
    assert said(owner) == "another job has taken this run over"
    assert not list(tmp_path.glob(f"run/{LOCK}/*"))


@pytest.fixture
def quick(monkeypatch):
    """A lock that looks and gives up sooner; returns after how many seconds a claim is silent."""
    for name, seconds in {"BEAT_S": 0.2, "SILENT_S": 3.0, "NOTICE_S": 1.0, "LOOK_S": 0.1}.items():
        monkeypatch.setattr(lock, name, seconds)
    return 3.0


@pytest.mark.parametrize(("silent", "take_over", "waited"), [(4.0, False, 0.0), (1.0, False, 1.5), (0.0, True, 1.0)])
def test_a_claim_from_another_machine_that_is_not_renewed_is_taken_over(
    tmp_path, silent, take_over, waited, quick, capsys
):
    other = claim(tmp_path / "run", "elsewhere", silent)
    start = time.monotonic()
    with locked(Folder(str(tmp_path / "run")), "report", take_over):
        assert not other.exists()
    assert waited <= time.monotonic() - start < waited + 3
    told = capsys.readouterr().err
    assert "from ada on elsewhere" in told
    assert ("sign of life of ada" in told) == (0 < silent < quick)


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])  # a name that two machines may share
def test_a_claim_from_another_machine_that_is_renewed_counts(tmp_path, host, quick):
    other = claim(tmp_path / "run", host, 0.5)
    over = threading.Event()

    def renew():
        while not over.wait(0.3):
            os.utime(other)

    beat = threading.Thread(target=renew)
    beat.start()
    try:
        with pytest.raises(InputError, match=f"ada on {host}"), locked(Folder(str(tmp_path / "run")), "report"):
            pass
    finally:
        over.set()
        beat.join()
    assert other.exists()


def test_a_claim_that_was_ended_stays_ended_when_its_owner_writes_it_again(tmp_path, quick):
    run = tmp_path / "run"
    with hold(run, 60) as process:
        assert said(process) == "held"
        (theirs,) = (run / LOCK).glob("*.json")
        before = theirs.read_bytes()
        process.send_signal(signal.SIGSTOP)
        with locked(Folder(str(run)), "report", take_over=True):
            theirs.write_bytes(before)  # as a beat does that looked before and writes after
            process.send_signal(signal.SIGCONT)
            assert said(process) == "another job has taken this run over"


def test_never_two_at_once(tmp_path):
    run = tmp_path / "run"
    processes = [hold(run, 0.5) for _ in range(6)]
    spans = []
    for process in processes:
        told, _ = process.communicate(timeout=60)
        if told.startswith("held"):
            spans.append(tuple(map(float, told.splitlines()[1].split())))
    for (_, end), (start, _) in zip(sorted(spans), sorted(spans)[1:], strict=False):
        assert end <= start
    with locked(Folder(str(run)), "report"):
        pass


def test_a_job_that_is_told_to_stop_gives_its_hold_back_and_goes_on_later(tmp_path):
    run = tmp_path / "run"
    small = ["data.synthetic.train_rows=3000", "data.synthetic.test_rows=10", "data.shard_rows=100"]
    line = ["-m", "ray_jobs.ingest", "--config", "configs/demo.yaml", "--set", f"run={run}"]
    for each in small:
        line += ["--set", each]
    with subprocess.Popen([sys.executable, *line], cwd=ROOT, stderr=subprocess.PIPE, text=True) as job:
        while not list(run.glob(".work/ingest/*/*.parquet")):  # Ray is at work
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(signal.SIGTERM)
        _, told = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert "told to stop; run the same line again to go on" in told
    assert "Traceback" not in told
    assert "SIGTERM received" not in told  # Ray's report of a crash
    assert not list(run.glob(f"{LOCK}/*"))
    done = run_job("ingest", run, *small)
    assert done.returncode == 0, done.stderr
