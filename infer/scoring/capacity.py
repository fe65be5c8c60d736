"""Wait for free resources for engines, and run several models in parallel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from core import logs
from core.errors import InputError
from core.resources import bundles_per_engine, engine_request, fit_at_once

if TYPE_CHECKING:
    from core.run import StageResult
    from core.settings.llm import Llm

ModelWork = Callable[[], list["StageResult"]]
_POLL_S = 10.0


class NoCapacityError(InputError):
    """The cluster had no free resources for an engine in time."""


def wait_for_capacity(stage: str, llm: Llm) -> None:
    """Wait for the GPUs and CPUs of one engine, and log it. The request makes an autoscaler add nodes.

    Raises NoCapacityError after `timeout_s` seconds.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    bundles = bundles_per_engine(llm)
    total = {name: sum(bundle.get(name, 0) for bundle in bundles) for name in bundles[0]}
    needed = " and ".join(f"{count:g} {name}s" for name, count in total.items())
    group = placement_group(bundles)
    ready = group.ready()
    started = time.monotonic()
    try:
        while not ray.wait([ready], timeout=min(_POLL_S, llm.timeout_s))[0]:
            free, capacity = ray.available_resources(), ray.cluster_resources()
            state = ", ".join(f"{free.get(name, 0):g} of {capacity.get(name, 0):g} {name}s free" for name in total)
            logs.info(stage, f"waiting for {needed}: {state}")
            waited = time.monotonic() - started
            if waited >= llm.timeout_s:
                raise NoCapacityError(
                    f"no free resources for an engine ({needed}) for {waited:.0f} s: {state}",
                    where=f"llms.{llm.name}",
                    fix="lower them, use a larger cluster, or raise timeout_s.",
                )
    finally:
        remove_placement_group(group)


def engines_fit_at_once(llms: Sequence[Llm]) -> bool:
    """Return whether the engines of all these models fit on the cluster at once, now or fully scaled up."""
    requests = [(llm, engine_request(llm)) for llm in llms]
    return fit_at_once([replace(request, count=request.count * llm.worker_range[1]) for llm, request in requests])


def run_together(works: Sequence[tuple[Llm, ModelWork]]) -> list[StageResult]:
    """Run several models in parallel. If one fails, the others finish before its error is raised. A model that found no
    free resources, because the cluster did not grow, runs after the others.
    """
    if len(works) < 2:
        return [result for _, work in works for result in work()]
    results: dict[str, list[StageResult]] = {}
    errors: dict[str, BaseException] = {}

    def do(llm: Llm, work: ModelWork) -> None:
        try:
            results[llm.name] = work()
        except BaseException as error:
            logs.warning(f"score_llm/{llm.name}", f"failed: {error}")
            errors[llm.name] = error

    # Daemons, so that an interrupted job ends without waiting for them.
    threads = [threading.Thread(target=do, args=item, daemon=True) for item in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for llm, work in works:
        if isinstance(errors.get(llm.name), NoCapacityError):
            logs.info(f"score_llm/{llm.name}", "no free resources while other models ran; retrying now")
            results[llm.name] = work()
            del errors[llm.name]
    for error in errors.values():
        raise error
    return [result for llm, _ in works for result in results[llm.name]]
