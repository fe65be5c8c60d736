"""Score shards of requests on engines that may die, and isolate poison requests.

Each request counts the engine deaths during which it may have been in flight. This count is its retry level. Requests
with the highest level are sent next. The higher the level, the fewer requests an engine processes at a time. When an
engine dies, the first unanswered requests (as many as fit in flight) move up one level. At the last level a request is
sent alone. If its engine dies twice there, it is a poison request and fails. Until the first reply, the last request is
sent alone after a death, and the third death ends the work.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from ray.exceptions import OutOfMemoryError, RayActorError

from infer.scoring.engine_log import death_cause
from infer.scoring.job import ERROR_COLUMN
from votes.schema import PROBABILITIES

if TYPE_CHECKING:
    from core.arrays import Ints, Probabilities
    from infer.scoring.job import RetryLevel
    from infer.scoring.requests import RequestShard

Reply = Mapping[str, Any]  # a reply: shard (its number), request, tokens, the probabilities, and ERROR if it failed
Shards = Mapping[int, "RequestShard"]  # by number
EngineRequester = Callable[
    [Shards, "RetryLevel"], Generator[Reply]
]  # replies in any order; raises what an engine died of
_DEATHS: Final = (RayActorError, OutOfMemoryError)  # the second where Ray's memory monitor ends an engine
_MAX_PREEMPTIONS: Final = 10  # in a row, without a reply


@dataclass(frozen=True)
class IsolationCallbacks:
    """Callbacks that report the progress of the work."""

    on_reply: Callable[[int, int], None] = lambda requests, tokens: None  # numbers of both since the last call
    on_incident: Callable[[str], None] = lambda text: None  # what happened to an engine


@dataclass(frozen=True)
class ShardScores:
    """The replies to one shard, in the order of its requests.

    `probabilities` (n, 3) are of A, B and tie in the order that the model read. They are nan for failed requests, with
    the cause in `reasons` (n,). `seconds` of wall clock passed since the shard before was done; the first shard's
    include the start of the engines.
    """

    file: str
    requests: Ints
    probabilities: Probabilities
    reasons: list[str]
    seconds: float


def score_shards(
    shards: Sequence[RequestShard],
    ask: EngineRequester,
    levels: Sequence[RetryLevel],
    max_poison: int = 3,
    events: IsolationCallbacks | None = None,
) -> Iterator[ShardScores]:
    """Score shards, and yield each as soon as all its requests are answered.

    Closing the iterator early ends the engines. To isolate a poison request takes some starts of an engine, so more
    than `max_poison` of them end the work. `levels` are those of `infer.scoring.job.retry_levels`.

    Raises RuntimeError then, if every request kills the engine, if it cannot start, or if machines are lost repeatedly
    before a reply.
    """
    events = events or IsolationCallbacks()
    isolation = _Isolation(shards, levels, max_poison, events)
    before = time.perf_counter()
    with contextlib.closing(_ask_all(isolation, ask)) as rows:
        for row in rows:
            events.on_reply(1, row["tokens"])
            shard = isolation.pending[row["shard"]]
            shard.add(row)
            if shard.unanswered == 0:
                del isolation.pending[row["shard"]]
                now = time.perf_counter()
                yield shard.scores(now - before)
                before = now


def _ask_all(isolation: _Isolation, ask: EngineRequester) -> Generator[Reply]:
    """Yield one row for each request, until the caller has taken them all from `isolation.pending`."""
    while isolation.pending:
        shards, level = isolation.next_requests()
        unanswered = sum(len(shard.requests) for shard in shards.values())
        try:
            with contextlib.closing(ask(shards, level)) as rows:
                for row in rows:
                    unanswered -= 1
                    isolation.count_reply(row)
                    yield row
        except _DEATHS as error:
            yield from isolation.count_death(error, unanswered)
        else:
            if unanswered:
                raise RuntimeError(f"the engines stopped before {unanswered} requests had a reply")


class _Isolation:
    """Requests without a reply, and the engine deaths that each was in flight for."""

    def __init__(
        self, shards: Sequence[RequestShard], levels: Sequence[RetryLevel], max_poison: int, events: IsolationCallbacks
    ) -> None:
        self.pending = {number: _PendingShard(shard) for number, shard in enumerate(shards)}
        self._levels = levels
        self._max_poison = max_poison
        self._report = events.on_incident
        self._deaths: dict[int, int] = {}  # by request; the others have 0
        self._deaths_before_a_reply = 0
        self._preemptions = 0
        self._poison = 0
        self._has_replied = False

    @property
    def _unanswered(self) -> int:
        return sum(shard.unanswered for shard in self.pending.values())

    @property
    def _needs_health_check(self) -> bool:
        """Whether to test with the last request, the shortest, if every request kills engines."""
        return self._deaths_before_a_reply > 0 and not self._has_replied

    def next_requests(self) -> tuple[Shards, RetryLevel]:
        """Return the next requests, those with the most deaths, and their level."""
        if self._needs_health_check:
            number, shard = list(self.pending.items())[-1]
            return {number: shard.last()}, self._levels[-1]
        if not self._deaths:
            return {number: shard.first() for number, shard in self.pending.items()}, self._levels[0]
        most = max(self._deaths.values())
        requests = {request for request, deaths in self._deaths.items() if deaths == most}
        return self._select(requests), self._levels[min(most, len(self._levels) - 1)]

    def count_reply(self, row: Reply) -> None:
        """Count a reply, before the caller takes it."""
        self._deaths.pop(row["request"], None)
        self._preemptions = 0
        # A health check's refusal shows life, too, but not a request that bypasses the engine as it cannot be packed.
        self._has_replied |= not row[ERROR_COLUMN] or (self._needs_health_check and row["tokens"] > 0)

    def count_death(self, error: Exception, unanswered: int) -> Iterator[Reply]:
        """Count an engine's death among the `unanswered` requests of the last ones asked.

        Yields the row of a request that failed by it. Raises RuntimeError if the death ends the work.
        """
        if getattr(error, "actor_init_failed", False):
            raise RuntimeError(f"the engine cannot start: {death_cause(error)}") from error
        if getattr(error, "preempted", False):
            self._count_preemption(error)
        elif unanswered and self._needs_health_check:
            self._count_failed_health_check(error)
        elif unanswered:
            yield from self._count_in_flight(error)

    def _count_preemption(self, error: Exception) -> None:
        self._preemptions += 1
        if self._preemptions == _MAX_PREEMPTIONS:
            raise RuntimeError(f"lost {self._preemptions} machines of engines before a reply") from error
        self._report("lost the machine of an engine; retrying")

    def _count_failed_health_check(self, error: Exception) -> None:
        self._deaths_before_a_reply += 1
        if self._deaths_before_a_reply == 3:  # machines also go away by themselves, so the last request gets two tries
            raise RuntimeError(f"the engine crashes on every request, or at startup: {death_cause(error)}") from error
        self._report("the engine also crashed on the last request; retrying it once")

    def _count_in_flight(self, error: Exception) -> Iterator[Reply]:
        """Count one death more for each request that was in flight."""
        most = max(self._deaths.values(), default=0)
        last = len(self._levels) - 1
        in_flight = self._first_with(most, self._levels[min(most, last)].in_flight)
        for request in in_flight:
            self._deaths[request] = most + 1
        if most > last:
            yield self._fail(in_flight[0], error)
        elif most == last:  # machines also go away by themselves, so it gets a second try
            self._report("the engine crashed on a single request; retrying it once")
        elif most == 0 and not self._has_replied and self._unanswered > self._max_poison:
            self._deaths_before_a_reply = 1  # unless so few are left that all of them may be poison
            self._report("the engine crashed before any reply; sending the last request alone")
        else:
            state = f"{self._unanswered:,} requests have no reply; sending {len(in_flight):,} of them one at a time"
            self._report(f"the engine crashed; {state}")

    def _fail(self, request: int, error: Exception) -> Reply:
        self._poison += 1
        if self._poison > self._max_poison:
            raise RuntimeError(
                f"the engine crashed on {self._poison} requests, each sent alone: {death_cause(error)}"
            ) from error
        self._report("the engine crashed on a single request again; it counts as failed")
        del self._deaths[request]
        reason = "the engine crashed twice on this request alone"
        ((number, _),) = self._select({request}).items()
        return {"shard": number, "request": request, "tokens": 0, ERROR_COLUMN: reason}

    def _first_with(self, deaths: int, most: int) -> list[int]:
        """Return the first unanswered requests with so many deaths, at most `most` of them."""
        requests: list[int] = []
        for shard in self.pending.values():
            numbers = shard.first().requests.tolist()
            requests += [number for number in numbers if self._deaths.get(number, 0) == deaths]
            if len(requests) >= most:
                break
        return requests[:most]

    def _select(self, requests: set[int]) -> Shards:
        """Return these requests by their shards."""
        selected: dict[int, RequestShard] = {}
        missing = len(requests)
        for number, shard in self.pending.items():
            part = shard.select(requests)
            if len(part.requests):
                selected[number] = part
                missing -= len(part.requests)
            if not missing:
                break
        return selected


class _PendingShard:
    """A shard whose replies are coming back."""

    def __init__(self, shard: RequestShard) -> None:
        self.shard = shard
        self.unanswered = len(shard.requests)
        self._positions: dict[int, int] | None = None  # of unanswered requests, made once a reply comes: it is large
        self._probabilities = np.full((self.unanswered, shard.classes), np.nan)
        self._reasons = [""] * self.unanswered

    def add(self, row: Reply) -> None:
        """Record the reply to one request."""
        if self._positions is None:
            self._positions = {request: n for n, request in enumerate(self.shard.requests.tolist())}
        position = self._positions.pop(row["request"])  # a second reply to a request is a KeyError
        self.unanswered -= 1
        if row[ERROR_COLUMN]:
            self._reasons[position] = row[ERROR_COLUMN]
            return
        probabilities = np.array([row[name] for name in PROBABILITIES[: self.shard.classes]], dtype=np.float64)
        total = probabilities.sum()
        if not np.isfinite(total) or total <= 0 or probabilities.min() < 0:
            self._reasons[position] = f"the model returned {probabilities.tolist()}"
            return
        # The softmax is in the model's precision; in bfloat16 its sum misses 1 visibly.
        self._probabilities[position] = probabilities / total

    def first(self) -> RequestShard:
        """Return the unanswered requests, in their order."""
        if self._positions is None:
            return self.shard
        return _part(self.shard, np.sort(np.fromiter(self._positions.values(), np.int64)))

    def last(self) -> RequestShard:
        """Return the last unanswered request."""
        return _part(self.first(), np.array([-1]))

    def select(self, requests: set[int]) -> RequestShard:
        """Return the unanswered requests among these, in order."""
        unanswered = self.first()
        return _part(unanswered, np.flatnonzero(np.isin(unanswered.requests, list(requests))))

    def scores(self, seconds: float) -> ShardScores:
        """Return the shard's scores, once every request is answered."""
        return ShardScores(self.shard.file, self.shard.requests, self._probabilities, self._reasons, seconds)


def _part(shard: RequestShard, positions: Ints) -> RequestShard:
    return replace(shard, rows=shard.rows[positions], requests=shard.requests[positions])
