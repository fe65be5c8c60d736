"""Places on the cluster where folds can train, and what it means when a process there is lost."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

LOOK_SECONDS = 0.3  # between looks at what has ended
QUIET_SECONDS = 3.0  # before the first message; CPUs that were just given back take a moment to show
REPORT_SECONDS = 10.0  # between messages while waiting


def ask_for(cpus: int, places: int = 1) -> PlacementGroup:
    """A placement group of so many places with `cpus` CPUs each, at once or when they are free.

    Until then an autoscaler sees that they are wanted.
    """
    return placement_group([{"CPU": cpus}] * places)


def is_placed(group: PlacementGroup) -> bool:
    """Whether the group has its CPUs. (Its own `ready()` would start a process to find out.)"""
    return bool(placement_group_table(group)["state"] == "CREATED")


def nodes_of(group: PlacementGroup) -> set[str]:
    """The ids of the nodes on which a placed group has its places."""
    return set(placement_group_table(group)["bundles_to_node_id"].values())


def alive(nodes: set[str]) -> set[str]:
    """Those of the nodes that are there."""
    return nodes & {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def describe_shortage(what: str, cpus: int, places: int = 1) -> str:
    """Why `places` times `cpus` CPUs cannot be had now for `what`, for the person who waits."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if max(nodes, default=0.0) < cpus:
        largest = max(nodes, default=0.0)
        return f"{what} needs {cpus} CPUs on one node, but the largest of {len(nodes)} nodes has {largest:g}"
    free = float(ray.available_resources().get("CPU", 0.0))
    times = f"{places} times " if places > 1 else ""
    there = (
        f"{free:g} of {sum(nodes):g} are free" if sum(nodes) >= cpus * places else f"there are {sum(nodes):g} in all"
    )
    return f"{what} needs {times}{cpus} free CPUs on one node; {there}"


def wait_for(
    reference: "ray.ObjectRef[Any]",
    what: str,
    on_wait: Callable[[str], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Wait until a task that takes one CPU has ended, saying how many are free while it may not have begun.

    Raises CancelledError once `cancelled` says so.
    """
    quiet_until = time.monotonic() + QUIET_SECONDS
    while not ray.wait([reference], timeout=LOOK_SECONDS, fetch_local=False)[0]:
        if cancelled():
            raise CancelledError
        if time.monotonic() >= quiet_until and ray.available_resources().get("CPU", 0.0) < 1:
            nodes = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
            on_wait(f"waiting for {what}: 0 of {nodes:g} CPUs are free")
            quiet_until = time.monotonic() + REPORT_SECONDS


def root_cause(error: BaseException) -> BaseException:
    """The exception at the bottom of the wrappers' chain, with Ray's wrapping taken off.

    Both wrappers raise RuntimeError from RayActorError from whatever happened, be it an error in the training code or
    the death of its process.
    """
    while True:
        if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
            error = error.cause
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return error
