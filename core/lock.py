"""One job at a time in a run's folder, on any file system: a claim that its owner keeps alive.

Object stores cannot create a file only if it is absent, so nobody races for one name. Each job writes a claim of its
own, then looks: whoever sees another's living claim withdraws. Both of two that come at the same moment may withdraw;
never do both stay. A claim is alive if its process is, or where that cannot be seen, if it is renewed.
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

from core.errors import InputError
from core.progress import say
from core.storage import Folder

LOCK = ".lock"
BEAT_S = 15.0
# A claim that was not renewed for eight beats: its owner is gone, or cut off, and has stopped two beats before.
SILENT_S = 8 * BEAT_S
CUT_OFF_S = 6 * BEAT_S
NOTICE_S = SILENT_S  # in which an owner that is alive notices that it was taken over, and stops
LOOK_S = BEAT_S / 5


class TakenOverError(RuntimeError):
    """Another job has taken the run over, or may have, unseen from here."""


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
    submitted_as: str = ""  # what `ray job stop` takes, of a job that `ray job submit` started

    def __str__(self) -> str:
        submitted = f", Ray job {self.submitted_as}" if self.submitted_as else ""
        return f"{self.owner} on {self.host} (process {self.pid}, {self.job}{submitted}, since {self.since})"

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
    if another takes it meanwhile, or if it could not be renewed for `CUT_OFF_S` seconds, so that another soon may.
    """
    made = (run / LOCK).make()
    me = _user(), socket.gethostname(), os.getpid()
    held = _Held(run / LOCK, Claim(*me, job, _now(), this_machine(), submitted_as=_submitted_as()))
    try:
        held.renew()
        _refuse_others(run, held, take_over)
        with held.kept_alive():
            yield
    finally:
        held.give_back()
        Folder.unmake(made)


class _Held:
    """This process's claim."""

    def __init__(self, folder: Folder, claim: Claim) -> None:
        self.folder = folder
        self.name = f"{uuid.uuid4().hex}.json"
        self._claim = claim
        self._renewed = time.monotonic()
        self._over = threading.Event()
        self._lost: str | None = None  # why
        self._cut_off = False
        self._trouble = ""  # with the storage, at the last beat

    def renew(self) -> None:
        """Write the claim; its time of change is the sign of life, by the clock of the storage."""
        self.folder.write_json(self.name, vars(self._claim))

    def end(self, name: str, claim: Claim, gone: bool) -> None:
        """End another's claim, for good: its owner may be about to renew it.

        An owner that is not `gone` has `NOTICE_S` seconds to see it, to stop, and to give its claim back.
        """
        self._claim = replace(self._claim, over=[*self._claim.over, name])
        self.renew()
        until = time.monotonic() + (0 if gone else NOTICE_S)
        while time.monotonic() < until and not claim.ended() and name in self._changed():
            time.sleep(LOOK_S)
            self.renew()
        self.folder.delete(name)

    def give_back(self) -> None:
        """Remove the claim; of a storage that does not answer nobody waits for that."""
        with contextlib.suppress(OSError):  # what ended the work is what counts
            if not self._cut_off:
                self.folder.delete(self.name)

    def claims(self) -> dict[str, float]:
        """When each claim that counts was renewed. Raises TakenOverError if this one is gone, or was ended."""
        changed = self._changed()
        return {name: when for name, when in changed.items() if name not in self._claim.over}

    def _changed(self) -> dict[str, float]:
        changed = {name: when for name, when in self.folder.changed().items() if name.endswith(".json")}
        others = [_read(self.folder, name) for name in changed.keys() - {self.name}]
        if self.name not in changed or any(self.name in other.over for other in others if other is not None):
            raise TakenOverError("another job has taken this run over")
        return changed

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renews the claim until the work is done; interrupts the work if the claim is gone, or cannot be renewed."""
        # Two, since what asks an object store that is away may be stuck in it for minutes.
        threads = [threading.Thread(target=each, daemon=True, name="run-lock") for each in (self._beat, self._watch)]
        self._renewed = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            yield
        except SystemExit:
            if self._lost:
                raise TakenOverError(self._lost) from None
            raise
        finally:
            self._over.set()
            for thread in threads:
                thread.join(0 if self._cut_off else BEAT_S)

    def _beat(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                self.claims()
                self.renew()
                if time.monotonic() - began < CUT_OFF_S:  # else another may have come and gone since the look
                    self._renewed = began
            except TakenOverError as error:
                self._lose(str(error))
                return
            except OSError as error:  # storage that is away for a moment; the next beat tries again
                self._trouble = f": {str(error).splitlines()[0]}"
            self._over.wait(max(LOOK_S, BEAT_S - (time.monotonic() - began)))

    def _watch(self) -> None:
        late = False
        while not self._over.wait(LOOK_S):
            silent = time.monotonic() - self._renewed
            was_late, late = late, silent > CUT_OFF_S
            if late and was_late:  # a process that was itself stopped for so long first gets to renew
                self._cut_off = True
                self._lose(
                    f"its hold on {self.folder} could not be renewed for {silent:.0f} s, so that another job may take "
                    f"it{self._trouble}; when the storage works again, the same line goes on"
                )
                if not self._over.wait(BEAT_S):  # the main thread does not get to it: it may be stuck there, too
                    say("lock", f"killed: {self._lost}")
                    os.kill(os.getpid(), signal.SIGKILL)
                return

    def _lose(self, why: str) -> None:
        main = threading.main_thread().ident
        assert main is not None
        if self._lost is None and not self._over.is_set():
            self._lost = why
            # A real signal, which also ends a wait inside a library; SIGINT may be ignored in the background.
            signal.pthread_kill(main, signal.SIGTERM)


def _refuse_others(run: Folder, held: _Held, take_over: bool) -> None:
    """Return once a look finds no other claim that counts."""
    seen: dict[str, float] = {}
    told = False
    while True:
        changed = held.claims()
        now = changed.pop(held.name)
        if not changed:
            return
        unsure: list[tuple[Claim, float]] = []
        for name, when in sorted(changed.items()):
            claim = _read(held.folder, name)
            if claim is None:
                continue
            gone = claim.ended() or now - when > SILENT_S
            if take_over or gone:
                say("lock", f"taking the run over from {claim}")
                held.end(name, claim, gone)
            elif claim.is_here() or when > seen.setdefault(name, when):
                raise InputError(
                    f"{claim} is at work here",
                    where=str(run),
                    fix="wait for it, or give --set run=DIR another folder; if it is gone for good, --take-over ends "
                    f"its hold now, and {SILENT_S:.0f} s after its last sign of life any job does.",
                )
            else:
                unsure.append((claim, SILENT_S - (now - when)))
        if unsure and not told:
            claim, seconds = max(unsure, key=lambda each: each[1])
            say("lock", f"waiting up to {seconds:.0f} s for a sign of life of {claim}")
            told = True
        if unsure:
            time.sleep(LOOK_S)
        held.renew()


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


def _submitted_as() -> str:
    """The ID that Ray gives in its jobs' environment, or an empty text."""
    try:
        told: dict[str, Any] = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
        return str(told["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
