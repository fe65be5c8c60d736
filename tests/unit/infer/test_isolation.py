"""Which requests are asked again when engines die, with engines that are made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from core.settings.llm import Llm
from infer.scoring.isolation import IsolationCallbacks, score_shards
from infer.scoring.job import ERROR_COLUMN, RetryLevel, ScoringJob, retry_levels
from infer.scoring.requests import RequestShard
from infer.scoring.streaming import hanging_request_tokens, shard_requests
from votes.schema import PROBABILITIES


class FakeEngines:
    """Stands in for asking: every request is answered with thirds, and some kill the engine, with the last answers.

    `deaths` are by request what an engine dies of then, once each. With `fails`, all others are refused; with
    `dies_after`, an engine that was asked a single request dies when it has answered.
    """

    def __init__(self, deaths: dict[int, list[Exception]], lost: int = 5) -> None:
        self.deaths = deaths
        self.lost = lost
        self.starts = 0
        self.fails = self.dies_after = False
        self.after: Exception = RayActorError()  # what it dies of then
        self.bypassing: set[int] = set()  # requests that cannot be packed

    def __call__(self, shards: Mapping[int, RequestShard], level: RetryLevel) -> Any:
        order = [(index, number) for index, shard in shards.items() for number in shard.requests.tolist()]
        self.starts += 1
        deadly = [place for place, (_, number) in enumerate(order) if self.deaths.get(number)]
        lost = min(self.lost, level.in_flight)
        for index, number in order[: max(0, deadly[0] - lost) if deadly else None]:
            thirds = dict.fromkeys(PROBABILITIES, 1 / 3)
            if number in self.bypassing:
                yield {"shard": index, "request": number, "tokens": 0, ERROR_COLUMN: "cannot be packed"}
                continue
            error = "refused" if self.fails else ""
            yield {"shard": index, "request": number, "tokens": 1, ERROR_COLUMN: error, **thirds}
        if not deadly and self.dies_after and len(order) == 1:
            raise self.after
        if deadly:
            raise self.deaths[order[deadly[0]][1]].pop()


def score_with(
    engines: FakeEngines,
    incidents: list[str] | None = None,
    max_poison: int = 3,
    num_workers: tuple[int, int] = (1, 1),
    count: int = 100,
) -> dict[int, str]:
    """Score ten shards of `count` requests; return why each request that failed did."""
    rows = np.arange(count, dtype=np.int32)
    shards = [RequestShard(str(n), "", rows, False, n * count + rows.astype(np.int64)) for n in range(10)]
    levels = retry_levels(Llm(name="m", checkpoint="m/m", num_workers=num_workers))
    events = IsolationCallbacks(on_incident=(incidents if incidents is not None else []).append)
    came = list(score_shards(shards, engines, levels, max_poison, events))
    assert sum(len(one.requests) for one in came) == 10 * count
    failed = {
        number: reason
        for one in came
        for number, reason in zip(one.requests.tolist(), one.reasons, strict=True)
        if reason
    }
    nans = {number for one in came for number in one.requests[np.isnan(one.probabilities[:, 0])].tolist()}
    assert failed.keys() == nans
    return failed


DIED_ALONE = "the engine crashed twice on this request alone"


@pytest.mark.parametrize("num_workers", [(1, 1), (1, 4)])
@pytest.mark.parametrize("death", [RayActorError(), OutOfMemoryError("the node has no memory left")])
def test_poison_requests_are_isolated_though_engines_take_answers_with_them(
    num_workers: tuple[int, int], death: Exception
) -> None:
    poison = {0, 1, 2, 37, 38, 950}  # the first three before anything is answered
    engines = FakeEngines({number: [death] * 99 for number in poison})
    incidents: list[str] = []
    failed = score_with(engines, incidents, max_poison=6, num_workers=num_workers)
    assert failed == dict.fromkeys(poison, DIED_ALONE)
    assert incidents.count("the engine crashed on a single request again; it counts as failed") == len(poison)
    assert engines.starts < 90


def test_one_death_moves_all_that_was_in_flight_to_the_next_level() -> None:
    engines = FakeEngines({500: [RayActorError()] * 99}, lost=300)
    assert score_with(engines) == {500: DIED_ALONE}
    assert engines.starts < 30


def test_a_machine_that_goes_away_costs_no_request() -> None:
    died, gone = RayActorError(), RayActorError(preempted=True)
    engines = FakeEngines({0: [gone, died] * 4 + [gone], 501: [gone] * 9})
    incidents: list[str] = []
    assert score_with(engines, incidents) == {}
    assert not any(engines.deaths.values())
    assert incidents.count("lost the machine of an engine; retrying") == 5 + 9
    # Three deaths on the way to asking it alone, in which it died once.
    assert incidents.count("the engine crashed on a single request; retrying it once") == 1


def test_machines_that_keep_going_away_end_the_work() -> None:
    engines = FakeEngines({0: [RayActorError(preempted=True)] * 99})
    with pytest.raises(RuntimeError, match="lost 10 machines of engines before a reply"):
        score_with(engines)


def test_more_poison_than_is_allowed_ends_the_work() -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in range(100, 1000)})
    with pytest.raises(RuntimeError, match="crashed on 5 requests, each sent alone"):
        score_with(engines, max_poison=4)
    assert engines.starts < 40


def test_an_engine_that_dies_of_whatever_it_is_asked_ends_the_work() -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in range(1000)})
    with pytest.raises(RuntimeError, match="crashes on every request, or at startup"):
        score_with(engines, max_poison=20)
    assert engines.starts == 3


def test_a_machine_that_goes_away_after_the_last_request_was_answered_is_no_endless_loop() -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in (0, 998)})
    engines.dies_after, engines.after = True, RayActorError(preempted=True)
    assert score_with(engines) == dict.fromkeys((0, 998), DIED_ALONE)
    assert engines.starts < 60


def test_a_last_request_that_passes_by_the_engine_shows_no_life() -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in range(999)})
    engines.bypassing = {999}
    with pytest.raises(RuntimeError, match="crashes on every request, or at startup"):
        score_with(engines, max_poison=20)
    assert engines.starts < 6


@pytest.mark.parametrize("rest", ["answered and then dead", "failed", "poison too"])
def test_three_poison_requests_and_no_reply_are_not_the_end_where_the_last_request_shows_life(rest: str) -> None:
    died = [RayActorError()] * 99
    engines = FakeEngines({number: list(died) for number in range(1000 if rest == "poison too" else 3)})
    engines.dies_after = rest == "answered and then dead"
    engines.fails = rest == "failed"
    budget = 1000 if rest == "poison too" else 3
    failed = score_with(engines, max_poison=budget, count=5 if rest == "poison too" else 100)
    assert set(failed.values()) <= {DIED_ALONE, "refused"}
    assert sum(reason == DIED_ALONE for reason in failed.values()) == (50 if rest == "poison too" else 3)


def test_a_request_that_hangs_vllm_is_not_asked() -> None:
    ids = pa.array([[5] * 4, [5] * 7, [5] * 6], pa.list_(pa.int32()))
    packed = pa.table({"ab": ids, "ba": ids, "reason": ["", "", "why"]})
    item = {"shard": 0, "packed_shard": "a", "rows": [0, 1, 2], "swapped": False, "requests": [10, 11, 12]}
    hanging = hanging_request_tokens(job(engine_args={"max_model_len": "7"}))
    table = pa.concat_tables(shard_requests(pa.Table.from_pylist([item]), lambda file: packed, 2, hanging))
    first, second, third = table[ERROR_COLUMN].to_pylist()
    assert (first, third) == ("", "why")
    assert "7 tokens" in second
    assert hanging_request_tokens(job()) is None
    assert hanging_request_tokens(job(mode="judge", engine_args={"max_model_len": 7})) is None


def job(**settings: Any) -> ScoringJob:
    return ScoringJob(Llm(name="m", checkpoint="m/m", **settings), "m/m")
