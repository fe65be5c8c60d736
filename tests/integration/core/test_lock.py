"""One job at a time in a run's folder."""

import itertools
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

from core import lock
from core.errors import InputError
from core.lock import LOCK_FOLDER, run_lock
from core.storage import Folder
from tests.helpers.commands import ROOT, run_job

HOLD = """
import signal, sys, time
from core import lock
from core.storage import Folder

run, seconds, machine = sys.argv[1:4]
lock.HEARTBEAT_S, lock.POLL_S, lock.RENEWAL_TIMEOUT_S, lock.STOP_TIMEOUT_S = 0.2, 0.1, 2.0, 5.0
if machine:
    lock.machine_identity = lambda: machine
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as core.cli does

def away(*_):
    time.sleep(1)
    raise OSError("no route to host")

started = None
try:
    with lock.run_lock(Folder(run), "pipeline", "--force-unlock" in sys.argv):
        started = time.time()
        try:
            print("held", flush=True)
            if "--cut-off" in sys.argv:
                Folder.write_json = away
            if "--stuck" in sys.argv:
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(float(seconds))
        finally:
            ended = time.time()
except lock.InputError:
    print("refused", flush=True)
except lock.LockLostError as error:
    print(error, flush=True)
finally:
    if started:
        print(started, ended, flush=True)
"""


def hold(run: Path, seconds: float, machine: str = "", *flags: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-c", HOLD, str(run), str(seconds), machine, *flags]
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


def lease(run: Path, host: str, unrenewed: float) -> Path:
    path = run / LOCK_FOLDER / "other.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"owner": "ada", "host": host, "pid": 1, "job": "blend", "since": "then"}))
    os.utime(path, (time.time() - unrenewed,) * 2)
    return path


def test_the_second_is_refused_with_the_owners_name_until_the_first_is_gone(tmp_path, owner):
    run = Folder(str(tmp_path / "run"))
    with (
        pytest.raises(InputError, match=rf"process {owner.pid}, pipeline, since 2.*--force-unlock"),
        run_lock(run, "blend"),
    ):
        pass
    with run_lock(Folder(str(tmp_path / "another")), "blend"):
        pass
    owner.kill()
    owner.wait()
    with run_lock(run, "blend"):
        pass
    # An owner that is killed while it renews its lease leaves a half-written file, which nobody reads.
    assert not list(tmp_path.glob(f"run/{LOCK_FOLDER}/*.json"))
    assert not (tmp_path / "another").exists()


@pytest.mark.slow
def test_the_command_line_refuses_and_takes_over(tmp_path, owner):
    small = ["data.synthetic.train_rows=40", "data.synthetic.test_rows=10", "data.folds=2"]
    refused = run_job("ingest", tmp_path / "run", *small)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert f"process {owner.pid}" in refused.stderr
    threading.Thread(target=owner.wait).start()  # else it would stay as a zombie
    taken = run_job("ingest", tmp_path / "run", *small, flags=["--force-unlock"])
    assert taken.returncode == 0, taken.stderr
    assert said(owner) == "another job has revoked this job's lock on the run"
    assert not list(tmp_path.glob(f"run/{LOCK_FOLDER}/*"))


@pytest.fixture
def quick(monkeypatch):
    """A lock that looks and gives up sooner; returns after how many seconds a lease is unrenewed."""
    for name, seconds in {
        "HEARTBEAT_S": 0.2,
        "EXPIRY_S": 3.0,
        "RENEWAL_TIMEOUT_S": 60.0,
        "STOP_TIMEOUT_S": 1.0,
        "POLL_S": 0.1,
    }.items():
        monkeypatch.setattr(lock, name, seconds)
    return 3.0


@pytest.mark.parametrize(
    ("unrenewed", "force_unlock", "waited"), [(4.0, False, 0.0), (1.0, False, 1.5), (0.0, True, 1.0)]
)
def test_a_lease_from_another_machine_that_is_not_renewed_is_taken_over(
    tmp_path, unrenewed, force_unlock, waited, quick, capsys
):
    other = lease(tmp_path / "run", "elsewhere", unrenewed)
    start = time.monotonic()
    with run_lock(Folder(str(tmp_path / "run")), "report", force_unlock):
        assert not other.exists()
    assert waited <= time.monotonic() - start < waited + 3
    output = capsys.readouterr().err
    assert "from ada on elsewhere" in output
    assert ("heartbeat of ada" in output) == (0 < unrenewed < quick)


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])  # a name that two machines may share
def test_a_lease_from_another_machine_that_is_renewed_counts(tmp_path, host, quick):
    other = lease(tmp_path / "run", host, 0.5)
    over = threading.Event()

    def renew():
        while not over.wait(0.3):
            os.utime(other)

    beat = threading.Thread(target=renew)
    beat.start()
    try:
        with pytest.raises(InputError, match=f"ada on {host}"), run_lock(Folder(str(tmp_path / "run")), "report"):
            pass
    finally:
        over.set()
        beat.join()
    assert other.exists()


def test_a_lease_that_was_ended_stays_ended_when_its_owner_writes_it_again(tmp_path, quick):
    run = tmp_path / "run"
    with hold(run, 60) as process:
        assert said(process) == "held"
        (theirs,) = (run / LOCK_FOLDER).glob("*.json")
        before = theirs.read_bytes()
        process.send_signal(signal.SIGSTOP)
        with run_lock(Folder(str(run)), "report", force_unlock=True):
            theirs.write_bytes(before)  # as a beat does that looked before and writes after
            process.send_signal(signal.SIGCONT)
            assert said(process) == "another job has revoked this job's lock on the run"


def spans(processes: "list[subprocess.Popen[str]]") -> list[tuple[float, ...]]:
    """From when to when each worked that had the run, in order."""
    output = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    return sorted(tuple(map(float, lines[-1].split())) for lines in output if lines[-1:] != ["refused"])


@pytest.mark.parametrize("machines", [[""] * 5, list("abcde")], ids=["one machine", "machines of their own"])
def test_never_two_at_once(tmp_path, machines):
    run = tmp_path / "run"
    first = hold(run, 4, machines[0])
    assert said(first) == "held"
    found = spans([first, *(hold(run, 1, machine) for machine in machines[1:])])
    assert found
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(found))
    with run_lock(Folder(str(run)), "report"):
        pass


@pytest.mark.parametrize("machines", [[""] * 3, list("abc")], ids=["one machine", "machines of their own"])
def test_a_revoked_owner_has_stopped_before_the_next_job_starts(tmp_path, machines):
    processes = []
    for machine, seconds in zip(machines, (60, 60, 1), strict=True):
        processes.append(hold(tmp_path / "run", seconds, machine, "--force-unlock"))
        assert said(processes[-1]) == "held"
    found = spans(processes)
    assert len(found) == len(machines)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(found))


def test_a_job_that_takes_over_can_be_taken_over_while_it_waits(tmp_path):
    run = tmp_path / "run"
    unrenewed = lease(run, "elsewhere", 0)
    with hold(run, 60, "second", "--force-unlock") as second:
        while len(list((run / LOCK_FOLDER).glob("*.json"))) < 2:
            time.sleep(0.05)
        with hold(run, 60, "third", "--force-unlock") as third:
            assert said(second) == "another job has revoked this job's lock on the run"
            assert said(third) == "held"
            third.kill()
    assert not unrenewed.exists()


def test_an_owner_that_cannot_reach_the_storage_stops_before_its_silence_counts(tmp_path):
    with hold(tmp_path / "run", 60, "elsewhere", "--cut-off") as owner:
        assert said(owner) == "held"
        assert "could not be renewed for 2 s" in said(owner)
        assert owner.wait(10) == 0
    with hold(tmp_path / "run", 60, "elsewhere", "--cut-off", "--stuck") as owner:
        assert said(owner) == "held"
        assert owner.wait(10) == -signal.SIGKILL


def test_a_submitted_job_is_named_as_ray_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "raysubmit_1"}}))
    with hold(tmp_path / "run", 60) as owner:
        assert said(owner) == "held"
        run = Folder(str(tmp_path / "run"))
        with pytest.raises(InputError, match="pipeline, Ray job raysubmit_1, since"), run_lock(run, "blend"):
            pass
        owner.kill()


@pytest.mark.slow
def test_a_stopped_job_releases_its_lock_and_resumes_later(tmp_path):
    run = tmp_path / "run"
    small = ["data.synthetic.train_rows=900", "data.synthetic.test_rows=10", "data.shard_rows=30"]
    line = ["-m", "ray_jobs.ingest", "--config", "configs/demo.yaml", "--set", f"run={run}"]
    for each in small:
        line += ["--set", each]
    with subprocess.Popen([sys.executable, *line], cwd=ROOT, stderr=subprocess.PIPE, text=True) as job:
        while not list(run.glob(".work/ingest/*/*.parquet")):  # Ray is at work
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(signal.SIGTERM)
        _, output = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert "stopped; run the same command again to resume" in output
    assert "Traceback" not in output
    assert "SIGTERM received" not in output  # Ray's report of a crash
    assert not list(run.glob(f"{LOCK_FOLDER}/*"))
    done = run_job("ingest", run, *small)
    assert done.returncode == 0, done.stderr
