"""Lock a run's folder on any file system. Leases, which their owners renew, admit one job at a time.

Object stores cannot create a file only if it is absent, so jobs do not race for one name. Each job writes a lease of
its own, then lists all leases, and withdraws if another one is live. Two jobs that start at the same moment may both
withdraw; they never both stay. A lease is live while its process is, or, on another machine, while it is renewed.
"""

import contextlib
import getpass
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core import logs
from core.errors import InputError
from core.storage import Folder

LOCK_FOLDER = ".lock"
HEARTBEAT_S = 15.0
# A lease expires after eight missed heartbeats. By then its owner is dead, or has stopped two heartbeats ago.
EXPIRY_S = 8 * HEARTBEAT_S
RENEWAL_TIMEOUT_S = 6 * HEARTBEAT_S
STOP_TIMEOUT_S = EXPIRY_S  # time for a live owner to notice a revoked lease and stop
POLL_S = HEARTBEAT_S / 5


class LockLostError(RuntimeError):
    """Another job took over the run, or may have done so while this job could not renew its lease."""


@dataclass(frozen=True)
class Lease:
    """The owner of a run's lock: user, host, process, job, and start time (UTC)."""

    owner: str
    host: str
    pid: int
    job: str
    since: str
    machine: str = ""  # where `pid` means this process; host names are not unique
    over: Sequence[str] = ()  # leases that this one has revoked: their owners may write them once more
    submitted_as: str = ""  # the ID that `ray job stop` takes, of a job that `ray job submit` started

    def __str__(self) -> str:
        submitted = f", Ray job {self.submitted_as}" if self.submitted_as else ""
        return f"{self.owner} on {self.host} (process {self.pid}, {self.job}{submitted}, since {self.since})"

    def is_here(self) -> bool:
        """Return whether the process is visible from this machine."""
        return self.machine == machine_identity()

    def ended(self) -> bool:
        """Return whether the process ran on this machine and has ended. Return False if it is not visible."""
        if not self.is_here():
            return False
        if self.pid == os.getpid():  # a restarted container
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


@contextlib.contextmanager
def run_lock(run: Folder, job: str, force_unlock: bool = False) -> Iterator[None]:
    """Lock a run's folder for one job.

    A lease expires when its process is gone (same machine) or after `EXPIRY_S` seconds without a heartbeat. Leases of
    other machines are watched until they renew or expire. With `force_unlock`, leases are revoked; a live owner
    has `STOP_TIMEOUT_S` seconds to stop.

    Raises InputError with the owner's name if another job uses the run. Raises LockLostError if another job takes the
    run over, or if the lease could not be renewed for `RENEWAL_TIMEOUT_S` seconds.
    """
    created = (run / LOCK_FOLDER).make()
    me = _user(), socket.gethostname(), os.getpid()
    held = _Held(run / LOCK_FOLDER, Lease(*me, job, _now(), machine_identity(), submitted_as=_submitted_as()))
    try:
        held.renew()
        _refuse_others(run, held, force_unlock)
        with held.kept_alive():
            yield
    finally:
        held.release()
        Folder.unmake(created)


class _Held:
    """This process's lease."""

    def __init__(self, folder: Folder, lease: Lease) -> None:
        self.folder = folder
        self.name = f"{uuid.uuid4().hex}.json"
        self._lease = lease
        self._renewed = time.monotonic()
        self._done = threading.Event()
        self._lost: str | None = None  # why
        self._cut_off = False
        self._trouble = ""  # with the storage, at the last heartbeat

    def renew(self) -> None:
        """Write the lease; its time of change is the heartbeat, by the clock of the storage."""
        self.folder.write_json(self.name, vars(self._lease))

    def revoke(self, name: str, lease: Lease, gone: bool) -> None:
        """Revoke another job's lease permanently: its owner may be about to renew it.

        An owner that is not `gone` has `STOP_TIMEOUT_S` seconds to notice, to stop, and to release its lease.
        """
        self._lease = replace(self._lease, over=[*self._lease.over, name])
        self.renew()
        until = time.monotonic() + (0 if gone else STOP_TIMEOUT_S)
        while time.monotonic() < until and not lease.ended() and name in self._changed():
            time.sleep(POLL_S)
            self.renew()
        self.folder.delete(name)

    def release(self) -> None:
        """Remove the lease. Do not wait for storage that does not answer."""
        with contextlib.suppress(OSError):  # the error that ended the work matters more
            if not self._cut_off:
                self.folder.delete(self.name)

    def leases(self) -> dict[str, float]:
        """Return when each valid lease was renewed. Raises LockLostError if this one is gone or revoked."""
        changed = self._changed()
        return {name: when for name, when in changed.items() if name not in self._lease.over}

    def _changed(self) -> dict[str, float]:
        changed = {name: when for name, when in self.folder.changed().items() if name.endswith(".json")}
        others = [_read(self.folder, name) for name in changed.keys() - {self.name}]
        if self.name not in changed or any(self.name in other.over for other in others if other is not None):
            raise LockLostError("another job has revoked this job's lock on the run")
        return changed

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew the lease until the work is done; interrupt the work if the lease is gone or cannot be renewed."""
        # Two threads: a call to an unreachable object store may block for minutes.
        threads = [
            threading.Thread(target=method, daemon=True, name="run-lock") for method in (self._renew_often, self._watch)
        ]
        self._renewed = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            yield
        except SystemExit:
            if self._lost:
                raise LockLostError(self._lost) from None
            raise
        finally:
            self._done.set()
            for thread in threads:
                thread.join(0 if self._cut_off else HEARTBEAT_S)

    def _renew_often(self) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            try:
                self.leases()
                self.renew()
                if time.monotonic() - began < RENEWAL_TIMEOUT_S:  # else another job may have come and gone in between
                    self._renewed = began
            except LockLostError as error:
                self._lose(str(error))
                return
            except OSError as error:  # a passing outage; the next heartbeat retries
                self._trouble = f": {str(error).splitlines()[0]}"
            self._done.wait(max(POLL_S, HEARTBEAT_S - (time.monotonic() - began)))

    def _watch(self) -> None:
        late = False
        while not self._done.wait(POLL_S):
            unrenewed = time.monotonic() - self._renewed
            was_late, late = late, unrenewed > RENEWAL_TIMEOUT_S
            if late and was_late:  # a process that was suspended first gets to renew
                self._cut_off = True
                self._lose(
                    f"its lock on {self.folder} could not be renewed for {unrenewed:.0f} s, so another job may take "
                    f"it{self._trouble}; when the storage works again, run the same command to resume"
                )
                if not self._done.wait(HEARTBEAT_S):  # the main thread may be blocked in the storage as well
                    logs.warning("lock", f"killed: {self._lost}")
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    def _lose(self, why: str) -> None:
        main = threading.main_thread().ident
        assert main is not None
        if self._lost is None and not self._done.is_set():
            self._lost = why
            # A real signal, which also ends a wait inside a library; SIGINT may be ignored in the background.
            signal.pthread_kill(main, signal.SIGTERM)


def _refuse_others(run: Folder, held: _Held, force_unlock: bool) -> None:
    """Return once no other lease is valid."""
    seen: dict[str, float] = {}
    reported = False
    while True:
        changed = held.leases()
        now = changed.pop(held.name)
        if not changed:
            return
        watched: list[tuple[Lease, float]] = []
        for name, when in sorted(changed.items()):
            lease = _read(held.folder, name)
            if lease is None:
                continue
            gone = lease.ended() or now - when > EXPIRY_S
            if force_unlock or gone:
                logs.info("lock", f"taking over the run from {lease}")
                held.revoke(name, lease, gone)
            elif lease.is_here() or when > seen.setdefault(name, when):
                raise InputError(
                    f"another job uses this run: {lease}",
                    where=str(run),
                    fix="wait for it, or give another folder with --set run=DIR; if that job is dead, retry in "
                    f"{EXPIRY_S:.0f} s or pass --force-unlock.",
                )
            else:
                watched.append((lease, EXPIRY_S - (now - when)))
        if watched and not reported:
            lease, seconds = max(watched, key=lambda pair: pair[1])
            logs.info("lock", f"waiting up to {seconds:.0f} s for a heartbeat of {lease}")
            reported = True
        if watched:
            time.sleep(POLL_S)
        held.renew()


def _read(folder: Folder, name: str) -> Lease | None:
    """Return a lease, or None if its owner has just withdrawn it."""
    try:
        values: dict[str, Any] = folder.read_json(name)
        return Lease(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Lease("someone", "an unknown machine", 0, "a job of another version", "an unknown time")


def machine_identity() -> str:
    """Return an identity of this machine since its last start, and of its visible processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _submitted_as() -> str:
    """Return the ID that Ray sets in the environment of submitted jobs, or an empty text."""
    try:
        config: dict[str, Any] = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
        return str(config["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
