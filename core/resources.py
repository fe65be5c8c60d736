"""Compute the resources that each job requests, and check whether the cluster can provide them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core import logs
from core.errors import InputError
from core.registry import FAMILIES

if TYPE_CHECKING:
    from core.settings.boosters import Booster
    from core.settings.features import Featurize
    from core.settings.finetune import FinetunedModel
    from core.settings.llm import Llm
    from core.settings.schema import Settings

# A JSON list of the nodes that the autoscaler may add: pairs of one node's resources and the largest number. It is
# empty without an autoscaler. clusters/start_ray.sh and configs/clusters/kuberay.yaml set it for drivers.
NODE_TYPES = "TIEBREAK_NODE_TYPES"
Resources = Mapping[str, float]
NodeTypes = Sequence[tuple[Resources, int]]


def resource_seconds(seconds: float, cpus: int, gpus: int) -> dict[str, float]:
    """Return the core-seconds and GPU-seconds of work on these CPUs and GPUs, for its manifest."""
    return {"core_seconds": round(seconds * cpus, 1), "gpu_seconds": round(seconds * gpus, 1)}


@dataclass(frozen=True)
class Request:
    """The minimum resources for `what` to run at all. With more, more runs in parallel.

    It has `count` bundles. Each must fit on one node; they may be on different nodes. `key` names the setting or
    section that decides it, or is empty.
    """

    job: str
    what: str
    bundle: Resources
    count: int = 1
    key: str = ""

    def __str__(self) -> str:
        text = " and ".join(_amount(name, amount) for name, amount in self.bundle.items())
        return text if self.count == 1 else f"{self.count} times {text}"


def resource_requests(settings: Settings) -> list[Request]:
    """Return the largest request of each kind of work, for every configured job and for `predict`."""
    asked = [Request("ingest", "a file or shard", {"CPU": 1})]
    families = family_requests(settings.featurize)
    if settings.boosters or families:
        asked.append(Request("featurize", "a shard, or a fit", {"CPU": 1}))
    asked += families
    for search in settings.tune:
        booster = next(model for model in settings.boosters if model.name == search.booster)
        asked.append(process_request("tune", booster))
    asked += [fold_request(booster) for booster in settings.boosters]
    for job, models in (("train_encoder", settings.finetune.encoders), ("train_llm", settings.finetune.llms)):
        for model in models:
            asked += [Request(job, f"{model.name}: packing", {"CPU": 1}), workers_request(job, model)]
    for llm in settings.llms:
        asked += [Request("score_llm", f"{llm.name}: packing", {"CPU": 1}), engine_request(llm)]
    asked += [Request("blend", "an analysis", {"CPU": 1}), Request("report", "a shard", {"CPU": 1})]
    return [*asked, *(process_request("predict", booster) for booster in settings.boosters)]


def family_requests(featurize: Featurize) -> list[Request]:
    """Return the request for one actor of each feature family that has actors."""
    bundles = {entry.entry_name: FAMILIES.get(entry.family).actor_resources(entry) for entry in featurize.families}
    return [
        Request("featurize", f"{name}: an actor", bundle, key=f"featurize.families.{name}")
        for name, bundle in bundles.items()
        if bundle is not None
    ]


def fold_request(booster: Booster) -> Request:
    """Return the request for one fold's training processes; see core.placement.request_placement_group."""
    key = booster.key("cpus_per_worker and num_workers")
    return Request(
        "train_boosters", f"{booster.name}: a fold", {"CPU": booster.cpus_per_worker}, booster.num_workers, key
    )


def process_request(job: str, booster: Booster) -> Request:
    """Return the request for one process that trains a trial's folds, or predicts shards."""
    what = "a trial" if job == "tune" else "a shard"
    key = booster.key("cpus_per_worker")
    return Request(job, f"{booster.name}: {what}", {"CPU": booster.cpus_per_worker}, key=key)


def workers_request(job: str, model: FinetunedModel) -> Request:
    """Return the request for one fold's workers; see train.finetune.fold_trainer."""
    bundle = worker_resources(model)
    key = f"finetune.{'encoders' if job == 'train_encoder' else 'llms'}.{model.name}"
    return Request(job, f"{model.name}: a fold's workers", bundle, model.num_workers, key)


def worker_resources(model: FinetunedModel) -> dict[str, float]:
    """Return the CPUs and GPUs of one worker that trains a model."""
    gpus: dict[str, float] = {"GPU": model.gpus_per_worker} if model.gpus_per_worker else {}
    return {"CPU": model.cpus_per_worker, **gpus}


def engine_request(llm: Llm) -> Request:
    """Return what one engine needs; see `bundles_per_engine`."""
    bundles = bundles_per_engine(llm)
    return Request("score_llm", f"{llm.name}: an engine", bundles[0], len(bundles), f"llms.{llm.name}")


def bundles_per_engine(llm: Llm) -> list[dict[str, float]]:
    """Return the bundles of one engine's placement group: one for each GPU, or one of CPUs alone.

    A bundle has a whole CPU at least: the process that Ray starts there takes one.
    """
    if llm.gpus_per_worker == 0:
        return [{"CPU": llm.cpus_per_worker}]
    cpus = max(1, math.ceil(llm.cpus_per_worker / llm.gpus_per_worker))
    return [{"CPU": cpus, "GPU": 1} for _ in range(llm.gpus_per_worker)]


def fits(request: Request, nodes: Sequence[Resources], to_come: NodeTypes = ()) -> bool:
    """Return whether the request fits on these nodes, if they were idle, or on all nodes `to_come`."""
    return _times(request, nodes, to_come) >= 1


def require_capacity(request: Request) -> None:
    """Raise InputError if the connected cluster can never satisfy the request.

    A local cluster cannot grow. Other clusters grow by their autoscaler's node types. If these are unknown, log what is
    missing; the job then waits.
    """
    nodes, to_come = _cluster()
    if fits(request, nodes, to_come):
        return
    every = [*nodes, *(node for node, _ in to_come)]
    most = {name: max((node.get(name, 0) for node in every), default=0) for name in request.bundle}
    largest = " and ".join(_amount(name, amount) for name, amount in most.items())
    count = max(len(nodes), sum(count for _, count in to_come))
    here = f"the largest node has {largest}" if request.count == 1 else f"{count} nodes have {largest} at most"
    if os.environ.get("RAY_ADDRESS") and NODE_TYPES not in os.environ:
        less = f", or stop it and lower {request.key}" if request.key else ""
        logs.info(request.job, f"{request.what} needs {request}, but {here}: waiting for more nodes{less}")
        return
    grown = ", even when fully scaled up" if to_come else ""
    raise InputError(
        f"needs {request}, but on this cluster {here}{grown}",
        where=request.key,
        fix="lower it, or use a larger cluster.",
    )


def can_scale_up(request: Request) -> bool:
    """Return whether the cluster's autoscaler may add nodes on which the request fits."""
    return fits(request, [], _cluster()[1])


def count_fitting(request: Request, most: int) -> int:
    """Return how many of the request fit on the cluster, now or fully scaled up: 1 to `most`.

    An autoscaler sees only what is requested at the same time.
    """
    return max(1, min(most, _times(request, *_cluster())))


def fit_at_once(asked: Sequence[Request]) -> bool:
    """Return whether all requests fit on the cluster at the same time, now or fully scaled up."""
    nodes, to_come = _cluster()
    return any(_pack(asked, cluster) for cluster in (nodes, [node for node, count in to_come for _ in range(count)]))


def request_table(settings: Settings) -> str:
    """Return what `pipeline --dry-run` prints: a line for each request."""
    requests = [request for request in resource_requests(settings) if request.job != "predict"]
    rows = [(request.job, request.what, str(request)) for request in requests]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    head = "Minimum resources of each job. A bundle must fit on one node; with more resources, more runs in parallel:"
    data = settings.data
    given = (
        "none yet: give data.train" if data.synthetic is None else f"{data.synthetic.train_rows:,} synthetic records"
    )
    votes = given if data.primary is None else ", ".join([data.primary, *(source.path for source in data.others)])
    return "\n".join(
        [
            f"Votes: {votes} (not read by --dry-run)" if data.primary is not None else f"Votes: {votes}",
            head,
            *(f"  {job.ljust(widths[0])}  {what.ljust(widths[1])}  {asked}" for job, what, asked in rows),
        ]
    )


def _cluster() -> tuple[list[Resources], NodeTypes]:
    """Return the resources of the nodes alive, and of all those that the autoscaler may have."""
    import ray

    declared = os.environ.get(NODE_TYPES)
    return [node["Resources"] for node in ray.nodes() if node["Alive"]], json.loads(declared) if declared else []


def _times(request: Request, nodes: Sequence[Resources], to_come: NodeTypes) -> int:
    """Return how often the request fits on these nodes, or on all those that the cluster may have."""
    here = sum(_places(request.bundle, node) for node in nodes)
    grown = sum(count * _places(request.bundle, node) for node, count in to_come)
    return max(here, grown) // request.count


def _pack(asked: Sequence[Request], nodes: Sequence[Resources]) -> bool:
    """Return whether every bundle finds a node, the largest first, each on the first that has room."""
    free = [dict(node) for node in nodes]
    bundles_asked = [request.bundle for request in asked for _ in range(request.count)]
    for bundle in sorted(bundles_asked, key=lambda bundle: (bundle.get("GPU", 0), bundle.get("CPU", 0)), reverse=True):
        place = next((node for node in free if _places(bundle, node)), None)
        if place is None:
            return False
        for name, amount in bundle.items():
            place[name] -= amount
    return True


def _amount(name: str, amount: float) -> str:
    return f"{amount:g} {name}" if amount == 1 else f"{amount:g} {name}s"


def _places(bundle: Resources, node: Resources) -> int:
    """Return how often the bundle fits on a node with these resources."""
    return int(min(node.get(name, 0) // amount for name, amount in bundle.items()))
