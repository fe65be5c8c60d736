"""One job at a time in a run's folder, on any file system: a claim that its owner keeps alive.

Object stores cannot create a file only if it is absent, so nobody races for one name. Each job writes a claim of its
own, then looks: whoever sees another's living claim withdraws. Both of two that come at the same moment may withdraw;
never do both stay. A claim is alive if its process is, or where that cannot be seen, if it is renewed.
"""

import contextlib
import getpass
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

from preference.errors import InputError
from ray_jobs.progress import say
from ray_jobs.storage import Folder

LOCK = ".lock"
BEAT_S = 15.0
# A claim that was not renewed for eight beats: its owner is gone, or cut off for so long that it must stop anyway.
SILENT_S = 8 * BEAT_S
NOTICE_S = 2 * BEAT_S  # in which an owner that is alive notices that it was taken over
LOOK_S = BEAT_S / 5


class TakenOverError(RuntimeError):
    """Another job has taken the run over."""


@dataclass(frozen=True)
class Claim:
    """Who works on a run: user, host and process, with which job and since when (UTC)."""

    owner: str
    host: str
    pid: int
    job: str
    since: str
    machine: str = ""  # where `pid` means this process; a host's name may be another's, too
    over: Sequence[str] = ()  # the claims that this one has ended: their owners may yet write them again

    def __str__(self) -> str:
        return f"{self.owner} on {self.host} (process {self.pid}, {self.job}, since {self.since})"

    def is_here(self) -> bool:
        """Whether its process is one that can be seen from here."""
        return self.machine == this_machine()

    def ended(self) -> bool:
        """Whether its process was on this machine and is no more. False where that cannot be told."""
        if not self.is_here():
            return False
        if self.pid == os.getpid():  # a container that was started again
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


@contextlib.contextmanager
def locked(run: Folder, job: str, take_over: bool = False) -> Iterator[None]:
    """Holds a run's folder for one job.

    A claim whose process ended on this machine, or that was silent for `SILENT_S` seconds, counts no more: one from
    elsewhere is waited for until it is renewed or as silent as that. With `take_over` none counts, and who is alive has
    `NOTICE_S` seconds to stop. Raises InputError, which names the owner, if another job has the run, and TakenOverError
    if another takes it meanwhile.
    """
    made = (run / LOCK).make()
    held = _Held(run / LOCK, Claim(_user(), socket.gethostname(), os.getpid(), job, _now(), this_machine()))
    try:
        held.renew()
        _refuse_others(run, held, take_over)
        with held.kept_alive():
            yield
    finally:
        with contextlib.suppress(OSError):  # what ended the work is what counts
            held.folder.delete(held.name)
        Folder.unmake(made)


class _Held:
    """This process's claim."""

    def __init__(self, folder: Folder, claim: Claim) -> None:
        self.folder = folder
        self.name = f"{uuid.uuid4().hex}.json"
        self._claim = claim
        self._over = threading.Event()
        self._lost = False

    def renew(self) -> None:
        """Write the claim; its time of change is the sign of life, by the clock of the storage."""
        self.folder.write_json(self.name, vars(self._claim))

    def end(self, name: str) -> None:
        """End another's claim, for good: its owner may be about to renew it."""
        self._claim = replace(self._claim, over=[*self._claim.over, name])
        self.renew()
        self.folder.delete(name)

    def claims(self) -> dict[str, float]:
        """When each claim was renewed. Raises TakenOverError if this one is gone, or another says that it has ended."""
        changed = {name: when for name, when in self.folder.changed().items() if name.endswith(".json")}
        others = [_read(self.folder, name) for name in changed.keys() - {self.name}]
        if self.name not in changed or any(self.name in other.over for other in others if other is not None):
            raise TakenOverError("another job has taken this run over")
        return changed

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renews the claim until the work is done; interrupts the work if the claim is gone."""
        beat = threading.Thread(target=self._beat, daemon=True, name="run-lock")
        beat.start()
        try:
            yield
        except SystemExit:
            if self._lost:
                raise TakenOverError("another job has taken this run over") from None
            raise
        finally:
            self._over.set()
            beat.join()

    def _beat(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._over.wait(BEAT_S):
            try:
                self.claims()
                self.renew()
            except TakenOverError:
                self._lost = True
                # A real signal, which also ends a wait inside a library; SIGINT may be ignored in the background.
                signal.pthread_kill(main, signal.SIGTERM)
                return
            except OSError:  # storage that is away for a moment; the next beat tries again
                continue


def _refuse_others(run: Folder, held: _Held, take_over: bool) -> None:
    seen: dict[str, float] = {}
    told = False
    while True:
        changed = held.claims()
        now = changed.pop(held.name)
        unsure: list[tuple[Claim, float]] = []
        for name, when in sorted(changed.items()):
            claim = _read(held.folder, name)
            if claim is None:
                continue
            gone = claim.ended() or now - when > SILENT_S
            if take_over or gone:
                say("lock", f"taking the run over from {claim}")
                held.end(name)
                if not gone:
                    _let_notice(claim)
            elif claim.is_here() or when > seen.setdefault(name, when):
                raise InputError(
                    f"{claim} is at work here",
                    where=str(run),
                    fix="wait for it, or give --set run=DIR another folder; if it is gone for good, --take-over ends "
                    f"its hold now, and {SILENT_S:.0f} s after its last sign of life any job does.",
                )
            else:
                unsure.append((claim, SILENT_S - (now - when)))
        if not unsure:
            return
        if not told:
            claim, seconds = max(unsure, key=lambda each: each[1])
            say("lock", f"waiting up to {seconds:.0f} s for a sign of life of {claim}")
            told = True
        time.sleep(LOOK_S)
        held.renew()


def _let_notice(claim: Claim) -> None:
    """Wait until the owner of a claim that was ended has stopped, where that can be seen, or must have."""
    until = time.monotonic() + NOTICE_S
    while not claim.ended() and time.monotonic() < until:
        time.sleep(0.2)


def _read(folder: Folder, name: str) -> Claim | None:
    """A claim, or None if its owner has just withdrawn it."""
    try:
        found: dict[str, Any] = folder.read_json(name)
        return Claim(**found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Claim("someone", "an unknown machine", 0, "a job of another version", "an unknown time")


def this_machine() -> str:
    """This machine since its last start, and which of its processes can be seen from here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
