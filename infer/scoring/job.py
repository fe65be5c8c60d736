"""Define the engines of one checkpoint, and the levels of retries."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from core.registry import MODES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.settings.llm import Llm
    from infer.scoring.mode import ScoringMode

ERROR_COLUMN: Final = "__inference_error__"  # the column of ray.data.llm that says why a row failed
CONCURRENT_BATCHES: Final = 8  # batches that an engine works on at once
MAX_RESTARTS: Final = 3  # of an engine that died, before the next retry level
_LOST_WITH_AN_ENGINE: Final = 8  # observed number of replies that are lost when an engine dies


@dataclasses.dataclass(frozen=True)
class ScoringJob:
    """One checkpoint of a language model, as its engines start from it."""

    llm: Llm
    source: str  # the checkpoint as ray.data.llm takes it: a folder, a hub id, or an object store's URI
    seed: int = 0
    answer_ids: tuple[int, ...] = ()  # tokens of the outcomes' answers, for a model that writes
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)  # variables of the engines' processes
    classes: int = 3  # number of outcomes

    @property
    def mode(self) -> ScoringMode:
        """Return the scoring mode."""
        mode: ScoringMode = MODES.get(self.llm.mode)
        return mode


@dataclasses.dataclass(frozen=True)
class RetryLevel:
    """A level of retries. When an engine dies, the first `in_flight` unanswered requests may be the cause."""

    num_workers: tuple[int, int]
    batch_size: int
    concurrent_batches: int
    restarts: int
    in_flight: int

    @property
    def one_by_one(self) -> bool:
        """Return whether an engine holds one request at a time."""
        return self.concurrent_batches == 1


def retry_levels(llm: Llm) -> tuple[RetryLevel, ...]:
    """Return the levels from the usual one to a single request on an engine of its own.

    An engine dies because its machine is lost, or because of a request, for example for lack of memory. The latter
    would repeat forever. So each death moves the requests in flight to a level with fewer requests in flight. These
    levels are one at a time on all engines, then on a single engine, and at last one request alone.
    """
    most = llm.worker_range[1]
    # Ray Data sends twice as many batches to an actor as it works on at a time.
    usual_in_flight = 2 * most * CONCURRENT_BATCHES * llm.batch_size
    usual = RetryLevel(llm.worker_range, llm.batch_size, CONCURRENT_BATCHES, MAX_RESTARTS, usual_in_flight)
    one_by_one = RetryLevel(llm.worker_range, 1, 1, 0, _LOST_WITH_AN_ENGINE * most)
    single = dataclasses.replace(one_by_one, num_workers=(1, 1), in_flight=_LOST_WITH_AN_ENGINE)
    alone = dataclasses.replace(single, in_flight=1)
    return usual, one_by_one, *([single] if most > 1 else []), alone, alone
