"""Starting a local Ray, also where a machine is too busy for the time that Ray gives itself, and being told to stop."""

import signal
import subprocess
import sys
import time

import pytest
import ray

from core import run
from tests.helpers.commands import ROOT, environment, job_line

LATE = "The current node timed out during startup. This could happen because..."


def test_what_a_late_start_left_is_ended_before_the_next_try(monkeypatch, capsys):
    started: list[subprocess.Popen[bytes]] = []

    def init(**options):
        if len(started) == 2:
            return
        started.append(subprocess.Popen(["sleep", "60"]))
        raise Exception(LATE)  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    run._start({})
    assert [process.wait(timeout=10) for process in started] == [-9, -9]
    assert capsys.readouterr().err.count("trying again") == 2


def test_a_start_that_is_always_late_ends_with_a_fix(monkeypatch):
    def init(**options):
        raise Exception(LATE)

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match=r"did not start in 3 tries .*Fix:"):
        run._start({})


def test_another_failure_is_not_tried_again(monkeypatch):
    calls = []

    def init(**options):
        calls.append(options)
        raise ValueError("no")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="no"):
        run._start({})
    assert len(calls) == 1


# Ray turns an exit that is raised while it waits into one of its own.
WAITING = """
import sys, time
import ray
from ray_jobs import cli, run

def work(of):
    run.connect(of)
    task = ray.remote(lambda: time.sleep(600)).remote()
    print("waiting", flush=True)
    ray.get(task)

sys.exit(cli.main("waits", None, work))
"""


@pytest.mark.slow
def test_sigterm_while_ray_waits_for_a_task_ends_the_job_as_it_says(tmp_path):
    _, _, *arguments = job_line("waits", tmp_path / "run")
    job = subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments], cwd=ROOT, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert job.stdout is not None
    assert job.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM, told
    assert "told to stop; run the same line again to go on" in told
    assert "Traceback" not in told


REFUSING = """
import sys
from core.errors import InputError
from ray_jobs import cli, run, shards

def refuse(item):
    raise InputError("not this", where=item["name"], fix="give another")

def refuse_later(item):
    refuse(item)
    yield item

def work(of):
    run.connect(of)
    list(shards.map_shards([{"name": "a shard"}], {"at once": refuse, "later": refuse_later}[WHEN]))

sys.exit(cli.main("refuses", None, work))
"""


@pytest.mark.parametrize("when", ["at once", pytest.param("later", marks=pytest.mark.slow)])
def test_input_that_a_shard_refuses_is_told_in_one_line(tmp_path, when):
    _, _, *arguments = job_line("refuses", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", f"WHEN = {when!r}\n{REFUSING}", *arguments], cwd=ROOT, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("[ray]")]  # it starts, maybe twice
    assert told == ["error: a shard: not this. Fix: give another"], done.stderr


# Ray itself, whose head is not found until its patience is at its end: the first time only.
LATE_HEAD = """
import time, types
import ray
import ray._private.node as node
import ray._private.services as services
from ray_jobs import run

found, looked_at = services.get_node, iter([1.0, 32.0])
node.time = types.SimpleNamespace(**{**vars(time), "monotonic": lambda: next(looked_at, None) or time.monotonic()})

def nowhere(*arguments):
    services.get_node = found
    raise RuntimeError("not yet")

services.get_node = nowhere
run._start({"num_cpus": 1, "include_dashboard": False})
print("answers", ray.get(ray.remote(lambda: 42).remote()))
"""


@pytest.mark.slow
def test_ray_starts_on_the_second_try():
    done = subprocess.run(
        [sys.executable, "-c", LATE_HEAD], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert "answers 42" in done.stdout, done.stderr
    assert done.stderr.count("trying again") >= 1  # on a busy machine truly late once more
