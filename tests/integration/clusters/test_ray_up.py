"""`ray up` for real: two hosts behind ssh, a job with work on both, nobody in without the token, `ray down`."""

import collections
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.helpers.cluster_files import LOCAL, ROOT, read
from tests.helpers.commands import environment, free_ports, wait_for
from tests.integration.clusters.hosts import Host, hosts, require_hosts, run_on

pytestmark = pytest.mark.slow
RAY = f"{sys.prefix}/bin/ray"
SMALL = ["data.synthetic={train_rows: 400, test_rows: 60}", "data.shard_rows=50", "data.folds=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_hosts()
    return tmp_path_factory.mktemp("ray-up")


@pytest.fixture(scope="module")
def machines(folder) -> Iterator[list[Host]]:
    with hosts(folder, 2, folder / "key") as found:
        yield found


def user(folder: Path, **changes: str) -> dict[str, str]:
    """The environment of somebody who has the token, at home in `folder`."""
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    return environment(PATH=path, HOME=str(folder), RAY_AUTH_MODE="token", **changes)


def filled_in(folder: Path, machines: list[Host]) -> Path:
    config = read(LOCAL)
    head, *workers = machines
    config["cluster_name"] = f"tiebreak-test-{os.getpid()}"
    config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address for worker in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    # Installing the environment is tested elsewhere (test_scripts.py); here both hosts see this one's.
    config["setup_commands"] = [f"ln -sfn {sys.prefix} ~/tiebreak/venv"]
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cluster(folder, machines) -> Iterator[dict[str, str]]:
    """The environment of a client of the cluster, which is up."""
    env = user(folder)
    subprocess.run([RAY, "get-auth-token", "--generate"], env=env, check=True, capture_output=True)
    config = filled_in(folder, machines)
    up = subprocess.run([RAY, "up", "-y", str(config)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=400)
    assert up.returncode == 0, up.stdout + up.stderr
    (port,) = free_ports(27000, 1)
    with (folder / "dashboard.log").open("w") as log:
        tunnel = subprocess.Popen(
            [RAY, "dashboard", "--port", str(port), str(config)], env=env, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, seconds=60)
        yield env | {"RAY_API_SERVER_ADDRESS": address, "RAY_ADDRESS": address}
    finally:
        tunnel.terminate()
        tunnel.wait(timeout=30)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([RAY, "down", "-y", str(config)], env=env, cwd=ROOT, capture_output=True, timeout=120)


def listed(what: str, env: dict[str, str], *filters: str) -> list[dict[str, object]]:
    line = [RAY, "list", what, "--format", "json", "--limit", "10000"]
    for each in filters:
        line += ["--filter", each]
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("[") :])
    assert isinstance(found, list)
    return found


def test_a_worker_on_another_address_joins(cluster, machines):
    end = time.monotonic() + 180
    while True:
        nodes = listed("nodes", cluster, "state=ALIVE")
        if {node["node_ip"] for node in nodes} == {machine.address for machine in machines}:
            return
        assert time.monotonic() < end, nodes
        time.sleep(3)


def submit(env: dict[str, str], run: Path) -> "subprocess.CompletedProcess[str]":
    line = [RAY, "job", "submit", "--working-dir", ".", "--", "python", "-m", "ray_jobs.pipeline"]
    line += ["--config", "configs/demo.yaml"]
    for override in (f"run={run}", *SMALL):
        line += ["--set", override]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=900)


def test_without_the_token_nobody_gets_in(cluster, folder, tmp_path):
    stranger = cluster | {"HOME": str(tmp_path)}
    refused = submit(stranger, tmp_path / "run")
    assert refused.returncode != 0
    assert "token" in (refused.stdout + refused.stderr).lower()
    wrong = tmp_path / ".ray/auth_token"
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_text("0" * 64)
    refused = submit(stranger, tmp_path / "run")
    assert refused.returncode != 0
    assert not (tmp_path / "run").exists()


def test_a_submitted_job_works_on_both_hosts(cluster, folder):
    done = submit(cluster, folder / "run")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert (folder / "run/blend/submission.csv").exists()
    tasks = listed("tasks", cluster, "state=FINISHED")
    assert len(collections.Counter(task["node_id"] for task in tasks if task["node_id"])) == 2


def test_down_ends_what_up_began_and_nothing_else(cluster, folder, machines):
    config = folder / "cluster.yaml"
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "raylet", "gcs_server"])
    down = subprocess.run([RAY, "down", "-y", str(config)], env=user(folder), cwd=ROOT, capture_output=True, text=True)
    assert down.returncode == 0, down.stderr
    stop = run_on(machines[0].address, folder / "key", ["bash", "tiebreak/clusters/start_ray.sh", "stop"])
    assert stop.returncode == 0, stop.stderr
    left = run_on(machines[0].address, folder / "key", ["ps", "-eo", "args"])
    assert not [line for line in left.stdout.splitlines() if "gcs_server" in line or "raylet" in line]
    assert other.poll() is None
    other.kill()
