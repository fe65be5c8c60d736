"""Hosts on this machine: network namespaces with sshd, each with its own processes, home and Ray folder."""

import contextlib
import fcntl
import getpass
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

BRIDGE, NETWORK = "tiebreak0", "10.77.7"
_HOST = "tiebreak-host"
TOOLS = ("ip", "unshare", "mount", "ssh", "ssh-keygen", "rsync", "sshd")
_SSHD = "/usr/sbin/sshd"  # insists on a whole path
_START = """
set -e
mount --bind {folder}/passwd /etc/passwd
mkdir -p /tmp/ray /run/sshd
mount --bind {folder}/ray /tmp/ray
mount -t tmpfs none /run
mkdir -p /run/sshd
hostname {name}
exec {sshd} -D -e -f {folder}/sshd_config
"""
_CONFIG = """
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {key}.pub
StrictModes no
PasswordAuthentication no
UsePAM no
PidFile none
PermitRootLogin yes
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Host:
    """A host: its address, and the folder that is its user's home."""

    address: str
    home: Path


def require_hosts() -> None:
    """Skip the test, saying why, where no hosts can be made."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; `make test-tools` installs them on Debian")
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    tried = subprocess.run(["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"no namespaces may be made here: {tried.stderr.decode().strip()}")


@contextlib.contextmanager
def hosts(folder: Path, count: int, key: Path) -> Iterator[list[Host]]:
    """So many hosts on a network of their own, which this process reaches, too; `key` gets in, as this user.

    Waits while another process has some.
    """
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with contextlib.ExitStack() as made:
        lock = made.enter_context((Path(tempfile.gettempdir()) / f"{BRIDGE}.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear_leftovers(count)
        _ip("link", "add", BRIDGE, "type", "bridge")
        made.callback(_ip, "link", "del", BRIDGE)
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        yield [made.enter_context(_host(folder / f"host{number}", number, key)) for number in range(count)]


def _clear_leftovers(count: int) -> None:
    """Take down what a run that was killed left. Raises RuntimeError if something still runs in it."""
    for number in range(count):
        name = f"{_HOST}{number}"
        living = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
        if living:
            raise RuntimeError(
                f"processes {', '.join(living)} run in {name}: of another run of this test, or left by one"
            )
        for leftover in (["netns", "del", name], ["link", "del", f"tb{number}a"]):
            subprocess.run(["ip", *leftover], capture_output=True)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)


@contextlib.contextmanager
def _host(folder: Path, number: int, key: Path) -> Iterator[Host]:
    name, address, home = f"{_HOST}{number}", f"{NETWORK}.{10 + number}", folder / "home"
    for part in (home, folder / "ray"):
        part.mkdir(parents=True)
    # The same user with another home: hosts share a disk here, but not what the user's programs keep there.
    user = getpass.getuser()
    lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    (folder / "passwd").write_text(
        "".join(":".join([*line[:5], str(home), *line[6:]] if line[0] == user else line) + "\n" for line in lines)
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
    (folder / "sshd_config").write_text(_CONFIG.format(address=address, folder=folder, key=key))
    with contextlib.ExitStack() as made:
        _ip("netns", "add", name)
        made.callback(_ip, "netns", "del", name)
        near, far = f"tb{number}a", f"tb{number}b"
        _ip("link", "add", near, "type", "veth", "peer", "name", far)
        made.callback(_ip, "link", "del", near)
        _ip("link", "set", far, "netns", name)
        _ip("link", "set", near, "master", BRIDGE, "up")
        for line in (f"addr add {address}/24 dev {far}", f"link set {far} up", "link set lo up"):
            _ip("-n", name, *line.split())
        script = _START.format(folder=folder, name=name, sshd=_SSHD)
        # Everything on the host ends with its first process.
        command = [
            "unshare",
            "--pid",
            "--mount",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            script,
        ]
        with (folder / "sshd.log").open("w") as log:
            first = subprocess.Popen(["ip", "netns", "exec", name, *command], stdout=log, stderr=log)
        made.callback(_end, first)
        _wait_for_ssh(address, key, folder / "sshd.log")
        yield Host(address, home)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(timeout=30)


def _wait_for_ssh(address: str, key: Path, log: Path) -> None:
    end = time.monotonic() + 30
    while run_on(address, key, ["true"]).returncode:
        if time.monotonic() > end:
            raise TimeoutError(f"no ssh at {address}: {log.read_text()}")
        time.sleep(0.3)


def run_on(address: str, key: Path, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command on a host."""
    options = [
        "-i",
        str(key),
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
    ]
    line = ["ssh", *options, f"{getpass.getuser()}@{address}", *command]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
