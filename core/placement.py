"""Placement groups for folds, waiting for tasks, and the causes of lost processes."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table

POLL_SECONDS = 0.3  # between looks at what has ended
FIRST_REPORT_SECONDS = 3.0  # before the first message; CPUs that were just given back take a moment to show
REPORT_SECONDS = 10.0  # between messages while waiting


def request_placement_group(cpus: int, bundles: int = 1) -> PlacementGroup:
    """Request a placement group of `bundles` with `cpus` CPUs each; it is placed once they are free.

    Until then an autoscaler sees the demand.
    """
    return placement_group([{"CPU": cpus}] * bundles)


def is_placed(group: PlacementGroup) -> bool:
    """Return whether the group has its CPUs. (Its own `ready()` would start a process to find out.)"""
    return bool(placement_group_table(group)["state"] == "CREATED")


def group_nodes(group: PlacementGroup) -> set[str]:
    """Return the ids of the nodes on which a placed group has its bundles."""
    return set(placement_group_table(group)["bundles_to_node_id"].values())


def alive_nodes(nodes: set[str]) -> set[str]:
    """Return the nodes that are alive."""
    return nodes & {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def describe_shortage(what: str, cpus: int, bundles: int = 1) -> str:
    """Return why `bundles` times `cpus` CPUs are not available for `what`, for the person who waits."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if max(nodes, default=0.0) < cpus:
        largest = max(nodes, default=0.0)
        return f"{what} needs {cpus} CPUs on one node, but the largest of {len(nodes)} nodes has {largest:g}"
    free = float(ray.available_resources().get("CPU", 0.0))
    times = f"{bundles} times " if bundles > 1 else ""
    enough = sum(nodes) >= cpus * bundles
    supply = f"{free:g} of {sum(nodes):g} are free" if enough else f"there are {sum(nodes):g} in all"
    return f"{what} needs {times}{cpus} free CPUs on one node; {supply}"


def wait_for_task(
    reference: "ray.ObjectRef[Any]",
    what: str,
    on_wait: Callable[[str], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> None:
    """Wait for the end of a task that takes one CPU. Report the free CPUs while it may be pending.

    Raises CancelledError once `cancelled` returns True.
    """
    quiet_until = time.monotonic() + FIRST_REPORT_SECONDS
    while not ray.wait([reference], timeout=POLL_SECONDS, fetch_local=False)[0]:
        if cancelled():
            raise CancelledError
        if time.monotonic() >= quiet_until and ray.available_resources().get("CPU", 0.0) < 1:
            nodes = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
            on_wait(f"waiting for {what}: 0 of {nodes:g} CPUs are free")
            quiet_until = time.monotonic() + REPORT_SECONDS


def root_cause(error: BaseException) -> BaseException:
    """Return the exception at the bottom of a chain, without Ray's wrapping.

    lightgbm_ray and xgboost_ray raise RuntimeError from RayActorError from the cause. They do so for an error in the
    training code and for the death of its process alike.
    """
    while True:
        if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
            error = error.cause
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            return error
