"""Places on the cluster where a fold can train: one placement group and one process that coordinates it."""

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

# A group that fits is placed in well under a second; one that does not (the free CPUs lie on several nodes, or the
# count of free CPUs was old) is taken back after this time.
PLACEMENT_SECONDS = 2.0


def free_cpus() -> float:
    """CPUs that no task, actor or placement group holds, over all nodes."""
    return float(ray.available_resources().get("CPU", 0.0))


def reserve(cpus: int) -> PlacementGroup | None:
    """A placement group of `cpus` CPUs on one node, or None if none fits now; it leaves no pending group behind."""
    if free_cpus() < cpus:
        return None
    group = placement_group([{"CPU": cpus}])
    try:
        if group.wait(PLACEMENT_SECONDS):
            return group
    except BaseException:
        remove_placement_group(group)
        raise
    remove_placement_group(group)
    return None


def describe_shortage(cpus: int) -> str:
    """Why `cpus` CPUs cannot be had now, for the person who waits."""
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    if max(nodes, default=0.0) < cpus:
        return f"each fold needs {cpus} CPUs on one node, but the largest of {len(nodes)} nodes has {max(nodes):g}"
    return f"each fold needs {cpus} free CPUs on one node; {free_cpus():g} of {sum(nodes):g} are free"


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


def is_death(error: BaseException) -> bool:
    """Whether the error is the loss of a process or node rather than a failure of the code that ran there."""
    return isinstance(error, RayActorError)
