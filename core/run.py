"""A run: its settings, its folder, and the Ray cluster its stages work on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from core.errors import InputError
from core.filesystems import unreachable_is_input_error
from core.progress import quiet_seconds, say
from core.resources import Request, may_grow
from core.stage import read_manifest
from core.storage import Folder

if TYPE_CHECKING:
    from core.settings.schema import Settings

Result = TypeVar("Result")
_ours = threading.Event()  # whether Ray was joined here, and not by who calls us
_STARTS = 3  # of a local Ray, which gives its own processes 30 s to answer, whatever else the machine does
_LOOK_S, _TELL_S = 5.0, 30.0  # between looks at a cluster without CPUs, and between lines about it


@dataclass
class StageResult:
    """What one stage did, for the summary at the end."""

    stage: str
    cached: bool
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass
class Run:
    """The settings and folder of a run.

    `force` redoes stages that are finished; `take_over` ends the hold that another job has on the folder.
    """

    settings: Settings
    force: bool = False
    take_over: bool = False

    def __post_init__(self) -> None:
        location = self.settings.run
        if "://" not in location:
            if not os.path.isabs(location) and os.environ.get("RAY_ADDRESS"):
                raise InputError(
                    f"the path {location!r} means another place on each machine of a cluster",
                    where="run",
                    fix="give an absolute path on storage that all machines share, or a URI.",
                )
            location = os.path.abspath(location)
        self.folder = Folder(location)  # the folder that the run leaves its outputs in
        with unreachable_is_input_error(location):
            self.folder.refuse_unwritable()

    def finished(self, name: str, job: str, records: str | None = None) -> dict[str, Any]:
        """The manifest of a stage that another job must have finished, from the records of this fingerprint if given.

        Raises InputError if it is not there, or made from other records: then its rows and folds are not these.
        """
        manifest = read_manifest(self.folder / name)
        if manifest is not None and records in (None, manifest["inputs"].get("records")):
            return manifest
        raise InputError(
            f"{name} is not there yet, or a job that was making it anew has not ended"
            if manifest is None
            else f"{name} was made from other records",
            where=str(self.folder),  # whole, since a relative one may be meant from elsewhere
            fix=f"run `python -m ray_jobs.{job}` with the same configuration first, or ray_jobs.pipeline.",
        )


def on_worker(run: Run, work: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - the work's own
    """What `work` returns, done in a Ray task, so that what it holds is not the driver's to hold.

    On a cluster it takes a CPU, since Ray keeps a task that asks for nothing on the driver's own node. Where there is
    only one CPU it takes none: tasks of its own would wait for it for ever.
    """
    import ray

    connect(run)
    one = Request("", "", {"CPU": 1}, count=2)
    elsewhere = "RAY_ADDRESS" in os.environ and (may_grow(one) or ray.cluster_resources().get("CPU", 0) > 1)
    result: Result = ray.get(ray.remote(num_cpus=int(elsewhere))(work).remote(*arguments))
    return result


def connect(run: Run) -> None:
    """Join the cluster of RAY_ADDRESS (as under `ray job submit`), or start a local one; nothing if connected."""
    import ray
    import ray.data

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        say("ray", "starting on this machine")
        # Ray's dashboard would listen on a port that nobody asked for.
        options |= {"num_cpus": run.settings.ray.cpus, "include_dashboard": False}
    main = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Ray warns that token authentication is on: that is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address == "local":
        _start(options)
    else:
        ray.init(address=address, **options)
    _ours.set()
    if main:
        # Ray's C++ code takes SIGTERM for a crash: it prints its own stack, and aborts what has not ended 3 s later.
        # Its Python handler, which takes the place of the job's own, is good enough for a process without one.
        signal.signal(signal.SIGTERM, on_sigterm if callable(on_sigterm) else signal.getsignal(signal.SIGTERM))
    # Our own lines say what matters; Ray Data's would bury them. What fails in its tasks is raised here, and told once.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else it raises one of its own in place of an InputError
    if address != "local":
        threading.Thread(target=_tell_of_no_cpu, daemon=True, name="no-cpu").start()


def _start(options: dict[str, Any]) -> None:
    """Start a local Ray, again where a busy machine did not let it answer in time."""
    import psutil
    import ray

    for left in reversed(range(_STARTS)):
        before = psutil.Process().children(recursive=True)
        try:
            ray.init(address="local", **options)
            return
        except Exception as problem:
            if "timed out during startup" not in str(problem):
                raise
            # What did come up stays until this process ends, and takes CPUs from the next try.
            for process in set(psutil.Process().children(recursive=True)) - set(before):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if not left:
                fix = "Fix: run the same line again when less else is at work."
                raise RuntimeError(
                    f"Ray did not start in {_STARTS} tries of 30 s: this machine is busy. {fix}"
                ) from problem
            say("ray", "has not started within its 30 s, since this machine is busy: trying again")


def disconnect() -> None:
    """End this job's tasks and actors, if `connect` has joined a cluster, so that nothing of it works on."""
    import ray

    if _ours.is_set():
        _ours.clear()
        ray.shutdown()


def _tell_of_no_cpu() -> None:
    """Says so, as long as the cluster has no CPU for tasks: an autoscaler takes minutes, or is refused.

    When nothing else has been said for a while, also that no CPU is free: another job may have them.
    """
    import ray

    next_told = 0.0
    while True:
        time.sleep(_LOOK_S)
        if not ray.is_initialized():  # asking would start it again
            return
        with contextlib.suppress(Exception):  # it has ended just now
            cpus = ray.cluster_resources().get("CPU", 0)
            if time.monotonic() >= next_told and not cpus:
                say("ray", "waiting for a node: the cluster has no CPUs for tasks yet")
                next_told = time.monotonic() + _TELL_S
            elif quiet_seconds() > _TELL_S and ray.available_resources().get("CPU", 0) < 1:
                say("ray", f"none of the cluster's {cpus:g} CPUs is free: they are at work, for this job or for others")
