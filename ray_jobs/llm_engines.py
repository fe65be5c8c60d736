"""Requests to a language model's engines, and what has to be there before they start."""

import functools
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infer.llm_settings import LlmSettings
from preference.errors import InputError
from ray_jobs import predictions
from ray_jobs.artifacts import Stage
from ray_jobs.llm_requests import ANSWERS, Unit
from ray_jobs.llm_scorers import Scorer
from ray_jobs.local_copy import engine_source
from ray_jobs.progress import Throughput, say
from ray_jobs.run import Run, connect, require_resources
from ray_jobs.settings_llm import Llm
from ray_jobs.storage import Folder

_LOOK_AGAIN_S = 10.0


def score_units(
    run: Run,
    stage: Stage,
    asked: list[Unit],
    tokens: Folder,
    lengths: npt.NDArray[np.int64],
    scorer: Scorer,
    llm: Llm,
) -> None:
    """Score the units whose answers are not in the stage's folder yet; `lengths` (requests,) are in tokens."""
    folder = stage.folder
    missing = [unit for unit in asked if folder.table_fingerprint(unit.file) != unit.fingerprint]
    found = sum(len(unit.requests) for unit in asked) - sum(len(unit.requests) for unit in missing)
    if found and missing:
        say(stage.name, f"{found:,} requests found answered, resuming")
    if not missing:
        return
    connect(run)
    require_resources(llm.cpus_per_replica, llm.gpus_per_replica, f"llms.{llm.name}")
    _wait_for_room(stage, llm)
    from infer.llm import Shard, score_shards

    count = sum(len(unit.requests) for unit in missing)
    progress = Throughput(stage.name, "requests", count, int(sum(lengths[unit.requests].sum() for unit in missing)))
    say(stage.name, f"starting the engine for {count:,} requests")
    by_file = {unit.file: unit for unit in missing}
    shards = [
        Shard(unit.file, unit.shard, unit.rows, np.full(len(unit.rows), unit.swapped), unit.requests)
        for unit in missing
    ]
    read = functools.partial(_read_tokens, folder=tokens)
    for scores in score_shards(shards, read, engine_settings(run, llm, scorer), progress.add):
        made = pa.table(
            {
                "request": scores.requests,
                **predictions.columns(scores.probabilities),
                "reason": scores.reasons,
                "seconds": np.full(len(scores.requests), scores.seconds / len(scores.requests)),
            }
        )
        folder.write_table(scores.key, made.cast(ANSWERS), by_file[scores.key].fingerprint)
    progress.end()


def engine_settings(run: Run, llm: Llm, scorer: Scorer) -> LlmSettings:
    """The settings of one model as its engines know them."""
    shared = {name: getattr(llm, name) for name in LlmSettings.__dataclass_fields__ if hasattr(llm, name)}
    source, environment = engine_source(scorer.place)
    answers: tuple[int, ...] = ()
    if llm.mode == "judge":
        from preference.judge_prompt import answer_ids
        from train.networks import load_tokenizer

        answers = answer_ids(load_tokenizer(scorer.local()))
    own = {
        "checkpoint": source,
        "environment": environment,
        "answers": answers,
        "replicas": llm.replica_range,
        "patience": llm.patience_s,
        "seed": run.settings.seed,
    }
    return LlmSettings(**{**shared, **own})


def _read_tokens(shard: str, folder: Folder) -> pa.Table:
    return folder.read_table(shard, ["ab", "ba", "reason"])


def _wait_for_room(stage: Stage, llm: Llm) -> None:
    """Wait until the cluster has the GPUs and CPUs of one engine, saying so; asking makes an autoscaler add them.

    Raises InputError after `patience_s` seconds.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    gpus = max(1, llm.gpus_per_replica)
    bundle = {"CPU": llm.cpus_per_replica / gpus, **({"GPU": 1} if llm.gpus_per_replica else {})}
    room = placement_group([bundle] * gpus)
    wanted = f"{llm.cpus_per_replica} CPUs" + (f" and {llm.gpus_per_replica} GPUs" if llm.gpus_per_replica else "")
    started = time.monotonic()
    try:
        while not ray.wait([room.ready()], timeout=min(_LOOK_AGAIN_S, llm.patience_s))[0]:
            free, there = ray.available_resources(), ray.cluster_resources()
            state = ", ".join(f"{free.get(name, 0):g} of {there.get(name, 0):g} {name}s free" for name in bundle)
            say(stage.name, f"waits for {wanted}: {state}")
            waited = time.monotonic() - started
            if waited >= llm.patience_s:
                raise InputError(
                    f"the cluster had no room for an engine ({wanted}) for {waited:.0f} s: {state}",
                    where=f"llms.{llm.name}",
                    fix="ask for less, run where there is more, or raise patience_s.",
                )
    finally:
        remove_placement_group(room)
