"""Join the Ray cluster of a job, or start a local one; wait for CPUs; disconnect."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from core import logs
from core.errors import InputError
from core.ray_address import await_cluster
from core.registry import REGISTRIES, load_entry_points, load_plugins
from core.resources import Request, can_scale_up

if TYPE_CHECKING:
    from core.run import Run

Result = TypeVar("Result")
_joined: Final = threading.Event()  # set if Ray was joined here, and not by our caller
_plugins: dict[str, str] = {}  # sources of plugins by module name, for the workers
_plugins_of_workers: dict[str, str] = {}  # those that the workers of the cluster that `connect` joined have
_START_ATTEMPTS: Final = 3  # of a local Ray, whose own processes must answer within 30 s
_POLL_S, _REPORT_S = 5.0, 30.0  # between looks at a cluster without CPUs, and between lines about it


def load_plugins_everywhere(sources: Mapping[str, str]) -> None:
    """Load plugins in this process, and in every worker process of the cluster that `connect` joins later.

    Installed plugins are loaded here too; workers find those themselves.

    Raises InputError if one fails, or takes the name of another member.
    """
    load_entry_points()
    load_plugins(sources)
    for registry in REGISTRIES if sources else ():
        registry.names()  # now, since a name that is taken is no fault of the settings
    _plugins.update(sources)


def run_on_worker(run: Run, work: Callable[..., Result], *arguments: Any) -> Result:  # noqa: ANN401 - the work's own
    """Run `work` in a Ray task to keep the driver's memory small; return its result.

    On a cluster the task takes a CPU, since Ray runs tasks without resources on the driver's node. With a single CPU
    the task takes none. Otherwise the tasks that `work` starts would wait forever for that CPU.
    """
    import ray

    connect(run)
    one = Request("", "", {"CPU": 1}, count=2)
    elsewhere = "RAY_ADDRESS" in os.environ and (can_scale_up(one) or ray.cluster_resources().get("CPU", 0) > 1)
    result: Result = ray.get(ray.remote(num_cpus=int(elsewhere))(work).remote(*arguments))
    return result


def connect(run: Run) -> None:
    """Join the cluster of RAY_ADDRESS (as under `ray job submit`), or start a local one. Do nothing if connected.

    Raises InputError if Ray runs already and its workers lack a plugin, since they get plugins at their start.
    """
    import ray
    import ray.data

    if ray.is_initialized():
        if _plugins.items() - _plugins_of_workers.items():
            raise InputError(
                "Ray runs already in this process, and its workers lack the plugin",
                "--plugin",
                "call ray.shutdown() first, or start the job as a process of its own.",
            )
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        logs.info("ray", "starting on this machine")
        # Ray's dashboard would open a port.
        options |= {"num_cpus": run.settings.ray.cpus, "include_dashboard": False}
    if _plugins:
        # Runs in each worker process before Ray unpickles anything there.
        hook = functools.partial(load_plugins, dict(_plugins))
        options["runtime_env"] = {"worker_process_setup_hook": functools.update_wrapper(hook, load_plugins)}
    if logs.LOGGER.isEnabledFor(logging.DEBUG):
        options |= {"log_to_driver": True, "logging_level": logging.INFO}
    main = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # Ray warns that token authentication is on: that is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address == "local":
        _start(options)
    else:
        await_cluster(address)
        _join(address, options)
    _joined.set()
    _plugins_of_workers.update(_plugins)
    if main:
        # Ray's C++ code treats SIGTERM as a crash: it prints its stack, and aborts after 3 s. Its Python handler
        # replaces the job's own, so put that back.
        signal.signal(signal.SIGTERM, on_sigterm if callable(on_sigterm) else signal.getsignal(signal.SIGTERM))
    # Ray Data's own lines would bury ours. What fails in its tasks is raised here and reported once.
    if not logs.LOGGER.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else Ray raises an exception of its own instead of an InputError
    if address != "local":
        threading.Thread(target=_report_missing_cpus, daemon=True, name="no-cpu").start()


def _start(options: dict[str, Any]) -> None:
    """Start a local Ray; retry if a busy machine did not let it answer in time."""
    import psutil
    import ray

    for left in reversed(range(_START_ATTEMPTS)):
        before = psutil.Process().children(recursive=True)
        try:
            ray.init(address="local", **options)
            return
        except Exception as problem:
            if "AF_UNIX path length" in str(problem):
                raise InputError(
                    "Ray's folder for temporary files has too long a path for its sockets",
                    next((f"{name}={os.environ[name]}" for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), ""),
                    "set RAY_TMPDIR to a short path, for example /tmp.",
                ) from problem
            if "timed out during startup" not in str(problem):
                raise
            # Processes that did start would stay until this one ends, and take CPUs from the next attempt.
            for process in set(psutil.Process().children(recursive=True)) - set(before):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if not left:
                fix = "Fix: run the same command again when the machine is less busy."
                raise RuntimeError(
                    f"Ray did not start in {_START_ATTEMPTS} attempts of 30 s: this machine is busy. {fix}"
                ) from problem
            logs.warning("ray", "did not start within 30 s because this machine is busy; retrying")


def _join(address: str, options: Mapping[str, Any]) -> None:
    """Join a running cluster. Raises InputError if `auto` finds none."""
    import ray

    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        fix = "start one, correct the address, or unset RAY_ADDRESS to start Ray on this machine."
        raise InputError("no Ray cluster answers", f"RAY_ADDRESS={address}", fix) from error


def disconnect() -> None:
    """End this job's tasks and actors, if `connect` has joined a cluster."""
    import ray

    if _joined.is_set():
        _joined.clear()
        _plugins_of_workers.clear()
        ray.shutdown()


def _report_missing_cpus() -> None:
    """Log that the cluster has no CPU for tasks yet. An autoscaler takes minutes, or is refused.

    After a while without other lines, also log that no CPU is free: another job may hold them.
    """
    import ray

    next_report = 0.0
    while True:
        time.sleep(_POLL_S)
        if not ray.is_initialized():  # a question would start it again
            return
        with contextlib.suppress(Exception):  # Ray may end at this moment
            cpus = ray.cluster_resources().get("CPU", 0)
            if time.monotonic() >= next_report and not cpus:
                logs.info("ray", "waiting for a node: the cluster has no CPUs for tasks yet")
                next_report = time.monotonic() + _REPORT_S
            elif logs.seconds_since_last_line() > _REPORT_S and ray.available_resources().get("CPU", 0) < 1:
                logs.info("ray", f"none of the cluster's {cpus:g} CPUs is free: this job or others use them")
