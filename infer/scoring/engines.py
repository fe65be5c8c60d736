"""Requests to a language model's engines, and what has to be there before they start."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from core.model_cache import engine_source
from core.progress import Throughput, say
from core.ray_session import connect
from core.resources import engine_request, require_room
from infer.scoring.engine_settings import LlmSettings, bundles
from infer.scoring.requests import ANSWERS, Packed, Unit
from votes import predictions

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.llm import Llm
    from core.stage import Stage
    from core.storage import Folder
    from infer.scoring.checkpoints import Scorer
    from votes.records import Records

_LOOK_AGAIN_S = 10.0


class NoRoomError(InputError):
    """The cluster had no room for an engine in time."""


@dataclass(frozen=True)
class Scoring:
    """What the checkpoints of one language model have in common."""

    run: Run
    records: Records
    llm: Llm
    stage: Stage
    tokens: Folder  # packed records
    packed: Packed


def score_units(scoring: Scoring, scorer: Scorer, missing: list[Unit], model: str, most_killers: int) -> None:
    """Score the units, and add the answers to those of the model of this fingerprint in the stage's folder.

    More than `most_killers` requests that kill engines end the work.
    """
    if not missing:
        return
    run, stage, llm, packed = scoring.run, scoring.stage, scoring.llm, scoring.packed
    connect(run)
    require_room(engine_request(llm))
    settings = engine_settings(run, llm, scorer)
    _wait_for_room(stage, llm, settings)
    from infer.scoring.isolation import Shard, score_shards

    count = sum(len(unit.requests) for unit in missing)
    tokens_of_all = int(sum(packed.tokens[unit.requests].sum() for unit in missing))
    progress = Throughput(stage.name, "requests", count, tokens_of_all)
    say(stage.name, f"starting the engine for {count:,} requests")
    shards = []
    for unit in missing:
        order = np.argsort(-packed.tokens[unit.requests], kind="stable")  # longest first
        swapped = np.full(len(order), unit.swapped)
        shards.append(Shard(unit.file, unit.shard, unit.rows[order], swapped, unit.requests[order]))
    read = functools.partial(_read_tokens, folder=scoring.tokens)
    for scores in score_shards(shards, read, settings, progress.add, functools.partial(say, stage.name), most_killers):
        made = pa.table(
            {
                "text": packed.texts.take(pa.array(scores.requests)),
                **predictions.columns(scores.probabilities),
                "reason": scores.reasons,
                "seconds": np.full(len(scores.requests), scores.seconds / len(scores.requests)),
            }
        ).cast(ANSWERS)
        if stage.folder.table_fingerprint(scores.key) == model:
            before = stage.folder.read_table(scores.key)
            again = pc.is_in(before["text"], made["text"].combine_chunks())
            made = pa.concat_tables([before.filter(pc.invert(again)).cast(ANSWERS), made])
        stage.folder.write_table(scores.key, made, model)
    progress.end()


def engine_settings(run: Run, llm: Llm, scorer: Scorer) -> LlmSettings:
    """The settings of one model as its engines know them."""
    shared = {name: getattr(llm, name) for name in LlmSettings.__dataclass_fields__ if hasattr(llm, name)}
    source, environment = engine_source(scorer.place)
    answers: tuple[int, ...] = ()
    if llm.mode == "judge":
        from core.pretrained import load_tokenizer
        from infer.scoring.judge_prompt import answer_ids, chat_frame

        tokenizer = load_tokenizer(scorer.outline())
        answers = answer_ids(tokenizer, chat_frame(tokenizer))
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


def _wait_for_room(stage: Stage, llm: Llm, settings: LlmSettings) -> None:
    """Wait until the cluster has the GPUs and CPUs of one engine, saying so; asking makes an autoscaler add them.

    Raises NoRoomError after `patience_s` seconds.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    wanted = bundles(settings)
    asked = {name: sum(bundle.get(name, 0) for bundle in wanted) for name in wanted[0]}
    what = " and ".join(f"{count:g} {name}s" for name, count in asked.items())
    room = placement_group(wanted)
    ready = room.ready()
    started = time.monotonic()
    try:
        while not ray.wait([ready], timeout=min(_LOOK_AGAIN_S, llm.patience_s))[0]:
            free, there = ray.available_resources(), ray.cluster_resources()
            state = ", ".join(f"{free.get(name, 0):g} of {there.get(name, 0):g} {name}s free" for name in asked)
            say(stage.name, f"waits for {what}: {state}")
            waited = time.monotonic() - started
            if waited >= llm.patience_s:
                raise NoRoomError(
                    f"the cluster had no room for an engine ({what}) for {waited:.0f} s: {state}",
                    where=f"llms.{llm.name}",
                    fix="ask for less, run where there is more, or raise patience_s.",
                )
    finally:
        remove_placement_group(room)
