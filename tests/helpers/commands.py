"""Running the product as a user does: whole commands, in processes of their own or in the tests'."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from ray_jobs.__main__ import main

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data"


def job_line(job: str, run: Path, *overrides: str, config: str = "configs/demo.yaml") -> list[str]:
    """The command line of a job."""
    line = ["-m", f"ray_jobs.{job}", "--config", config]
    for override in (f"run={run}", *overrides):
        line += ["--set", override]
    return line


def run_job(
    job: str, run: Path, *overrides: str, config: str = "configs/demo.yaml", flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a job to its end on a local Ray cluster of its own."""
    line = [sys.executable, *job_line(job, run, *overrides, config=config), *flags]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=environment(), check=False)


def run_here(
    job: str, run: Path, *overrides: str, config: str = "configs/demo.yaml", flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The same in this process, on the Ray cluster of the fixture `ray_cluster`.

    Nothing waits for Python, Ray and what Ray's workers import to start, which is most of a small job's time.
    """
    line = [job, *job_line(job, run, *overrides, config=config)[2:], *flags]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(ROOT):
        try:
            code = main(line)
        except SystemExit as stop:
            code = int(str(stop.code))
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without an address that would join the tests' own Ray cluster."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return kept | changes


def free_ports(first: int, count: int) -> list[int]:
    """Free ports from `first` on."""
    found: list[int] = []
    for port in range(first, first + 2000):
        with contextlib.closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports from {first}")


@contextlib.contextmanager
def ray_head(folder: Path, cpus: int, temporary: Path | None = None, **changes: str) -> Iterator[dict[str, str]]:
    """A Ray head in a private port range with token authentication; yields the environment that clients need.

    It keeps its session in `temporary` where that is given, and has `changes` in its environment.
    """
    names = [
        "port", "ray-client-server-port", "node-manager-port", "object-manager-port", "runtime-env-agent-port",
        "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "dashboard-port",
    ]  # fmt: skip
    ports = dict(zip(names, free_ports(23000, len(names)), strict=True))
    # As after `source .venv/bin/activate`: submitted jobs run the `python` that the head finds.
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    subprocess.run(
        [f"{sys.prefix}/bin/ray", "get-auth-token", "--generate"],
        env=environment(HOME=str(folder)),
        check=True,
        capture_output=True,
    )
    env = environment(PATH=path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=f"{folder}/.ray/auth_token", **changes)
    # Not below `folder`: Ray's sockets live here, and a socket's path is limited to 107 bytes.
    session = tempfile.mkdtemp(prefix="tiebreak-") if temporary is None else str(temporary)
    line = [
        "ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1",
        "--num-cpus", str(cpus), "--dashboard-host", "127.0.0.1", "--include-dashboard", "true",
        "--temp-dir", session, "--min-worker-port", "24000", "--max-worker-port", "24999",
        "--disable-usage-stats", *(f"--{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(line, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait_for(address, seconds=180)
        yield env | {"RAY_API_SERVER_ADDRESS": address}
    finally:
        # `ray start --block` waits up to 30 s for each of its processes, and some do not end when asked to.
        for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait(timeout=60)
        if temporary is None:
            shutil.rmtree(session, ignore_errors=True)


def wait_for(address: str, seconds: float) -> None:
    """Wait until something answers HTTP there, be it with a refusal."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"nothing answers at {address}")
