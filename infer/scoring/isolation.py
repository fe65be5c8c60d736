"""Scoring packed records with a language model: shards of requests in, probabilities out, shard by whole shard."""

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from infer.scoring.engine_log import cause
from infer.scoring.engine_settings import LlmSettings, ways
from infer.scoring.vllm_engine import engine
from votes.schema import PROBABILITIES

ReadShard = Callable[[str], pa.Table]
Tell = Callable[[int, int], None]  # called with requests and tokens that were answered since it was called last
Notice = Callable[[str], None]  # called with what happened to the engines
_ERROR: Final = "__inference_error__"  # the column of ray.data.llm that says why a row failed
_CARRIED: Final = ("shard", "request", "tokens")
_DEATHS: Final = (RayActorError, OutOfMemoryError)  # the second where Ray's memory monitor ends an engine
_GONE: Final = 10  # machines in a row that went away before an answer
# Ray Data's context and the level of logging are the whole process's: only one thread at a time may change them.
_BUILDING: Final = threading.Lock()
_TOKEN_BYTES: Final = 4  # of int32, below
_REQUESTS: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("request", pa.int64()),
        ("tokens", pa.int32()),
        ("tokenized_prompt", pa.list_(pa.int32())),
        (_ERROR, pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Shard:
    """Requests that are scored and committed together, and asked in this order.

    The longest ones should be first: they show at once whether they fit into memory, and none of them is left running
    when the others are done.
    `file` means something to the caller's `read_shard` only. Of the record in row `rows[i]` there, the order
    B, A where `swapped[i]`, is the request with the number `requests[i]`; numbers are the caller's, each used once.
    """

    key: str
    file: str
    rows: npt.NDArray[np.int32]  # (n,)
    swapped: npt.NDArray[np.bool_]  # (n,)
    requests: npt.NDArray[np.int64]  # (n,)


@dataclasses.dataclass(frozen=True)
class ShardScores:
    """The answers to one shard, in the order of its requests.

    `probabilities` (n, 3) are those of A, B and tie in the order that the model read; they are nan for a request that
    failed, and `reasons` (n,) say why (empty for the others). `seconds` of wall clock passed since the shard before
    came back; the first shard's include the start of the engines.
    """

    key: str
    requests: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    reasons: list[str]
    seconds: float


def score_shards(
    shards: Sequence[Shard],
    read_shard: ReadShard,
    settings: LlmSettings,
    tell: Tell = lambda requests, tokens: None,
    notice: Notice = lambda text: None,
    most_killers: int = 3,
) -> Iterator[ShardScores]:
    """Score shards on one set of engines; each is yielded as soon as all its requests are answered.

    `read_shard` runs in Ray tasks, is pickled to them, and returns for a file the columns `ab` and `ba`, the token ids
    of both orders, and `reason`, empty or why a record has none. Closing the iterator early ends the engines.
    A request that kills its engine twice when it is asked alone (see `ways`) is one that failed. To find one takes some
    starts of an engine, so more than `most_killers` of them end the work.

    Raises RuntimeError then, if no answer comes for `settings.patience` seconds, if the engine dies before any answer
    and twice more of the last request alone, if it cannot start, or if machines keep going away before an answer.
    """
    pending = {index: _Pending(shard) for index, shard in enumerate(shards)}
    before = time.perf_counter()
    with contextlib.closing(_ask_all(pending, read_shard, settings, notice, most_killers)) as rows:
        for row in rows:
            tell(1, row["tokens"])
            one = pending[row["shard"]]
            one.add(row)
            if one.left == 0:
                del pending[row["shard"]]
                now = time.perf_counter()
                yield one.scores(now - before)
                before = now


def _ask_all(
    pending: Mapping[int, "_Pending"],
    read_shard: ReadShard,
    settings: LlmSettings,
    notice: Notice,
    most_killers: int,
) -> Generator[Mapping[str, Any]]:
    """One row per request until nothing is pending, which the caller sees to; with more care while engines die.

    Each way to ask has its window, of the first unanswered requests in that of the way before. What kills an engine is
    looked for in ever smaller windows; when one has no request left, it goes on in the one around it.
    """
    levels = ways(settings)
    windows = [sum(one.left for one in pending.values())]  # how many requests are left in each
    answered = killers = gone = 0
    probes = 0  # how often the last request is still to be asked alone, to see whether the engine dies of everything
    suspect: int | None = None  # the request that an engine died of once when it was asked alone
    while pending:
        level = len(windows) - 1
        total, before = windows[0], windows[level]
        probing = probes > 0 and not answered
        asked = _last_unanswered(pending) if probing else _first_unanswered(pending, before)
        try:
            way = levels[-1 if probing else level]
            with contextlib.closing(_ask(asked, read_shard, way.settings)) as rows:
                for row in rows:
                    windows = [min(left, windows[0] - 1) if probing else left - 1 for left in windows]
                    # A refusal is life, too, but not what passes by the engine because it cannot be packed.
                    answered += not row[_ERROR] or (probing and row["tokens"] > 0)
                    gone = 0
                    yield row
            if windows[0] == total or (windows[level] and not probing):
                raise RuntimeError(f"{windows[level]} of {before} answers are missing")
        except _DEATHS as error:
            if getattr(error, "actor_init_failed", False):
                raise RuntimeError(f"the engine cannot start: {cause(error)}") from error
            if getattr(error, "preempted", False):
                gone += 1
                if gone == _GONE:
                    raise RuntimeError(f"{gone} times the machine of an engine went away before an answer") from error
                notice("the machine of an engine went away; asking again")
            elif not windows[level] or (probing and answered):
                pass  # it died when all was done
            elif probing and probes > 1:  # machines also go away by themselves
                probes -= 1
                notice("the engine died of the last request, too; asking it once more")
            elif probing:
                raise RuntimeError(
                    f"the engine dies of whatever it is asked, or when it starts: {cause(error)}"
                ) from error
            elif level < len(levels) - 1:
                # What is asked first is longest. Unless so few are left that all of them may fail, the last one shows
                # at once whether the engine dies of everything: to look for what kills it takes many starts.
                probes = 2 if not answered and level == 0 and windows[0] > most_killers else 0
                reach = levels[level + 1].reach
                assert reach is not None
                windows.append(min(reach, windows[level]))
                if probes:
                    notice("the engine died before it answered anything; asking the last request alone")
                else:
                    notice(
                        f"the engine died, {windows[0]:,} requests are unanswered; asking {windows[-1]:,} one at a time"
                    )
            else:
                ((index, shard),) = asked.items()
                (number,) = shard.requests.tolist()
                if number != suspect:  # machines also go away by themselves
                    suspect = number
                    notice("the engine died of a single request; asking it once more")
                    continue
                killers += 1
                if killers > most_killers:
                    raise RuntimeError(
                        f"the engine died of {killers} requests, each asked alone: {cause(error)}"
                    ) from error
                notice("the engine died of a single request again, which counts as failed")
                windows = [left - 1 for left in windows]
                reason = "the engine died twice when it was asked about this record alone"
                yield {"shard": index, "request": number, "tokens": 0, _ERROR: reason}
        while len(windows) > 1 and not windows[-1]:
            windows.pop()


def _first_unanswered(pending: Mapping[int, "_Pending"], most: int) -> dict[int, Shard]:
    """The first unanswered requests, so many at most, by their shard's number."""
    found: dict[int, Shard] = {}
    for index, one in pending.items():
        if most == 0:
            break
        found[index] = one.rest(most)
        most -= len(found[index].requests)
    return found


def _last_unanswered(pending: Mapping[int, "_Pending"]) -> dict[int, Shard]:
    """The last unanswered request."""
    index, one = list(pending.items())[-1]
    return {index: _part(one.rest(one.left), slice(-1, None))}


def _ask(shards: Mapping[int, Shard], read_shard: ReadShard, settings: LlmSettings) -> Generator[dict[str, Any]]:
    """The answers to these requests; what their engines held of the cluster is given back at the end."""
    groups: list[PlacementGroup] = []
    try:
        with contextlib.closing(_patiently(_answers(shards, read_shard, settings, groups), settings.patience)) as rows:
            yield from rows
    finally:
        for group in groups:
            remove_placement_group(group)


def _patiently(rows: Generator[dict[str, Any]], patience: float) -> Generator[dict[str, Any]]:
    """The rows, or RuntimeError if none comes for so many seconds."""
    came: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(maxsize=1000)
    over = threading.Event()

    def read() -> None:
        try:
            with contextlib.closing(rows):
                for row in rows:
                    came.put(row)
                    if over.is_set():
                        return
            came.put(None)
        except BaseException as error:
            came.put(error)

    reader = threading.Thread(target=read, daemon=True, name="llm-answers")
    reader.start()
    try:
        while True:
            try:
                row = came.get(timeout=patience)
            except queue.Empty:
                raise RuntimeError(
                    f"no answer from the model for {patience:g} s; either its engine cannot start or keep running "
                    "(Ray's logs say why), or it needs more time: raise llms.patience_s"
                ) from None
            if row is None:
                return
            if isinstance(row, BaseException):
                raise row
            yield row
    finally:
        over.set()
        with contextlib.suppress(queue.Empty):
            while True:
                came.get_nowait()
        reader.join(timeout=30)


def _answers(
    shards: Mapping[int, Shard], read_shard: ReadShard, settings: LlmSettings, groups: list[PlacementGroup]
) -> Generator[dict[str, Any]]:
    """One row per request, in any order: the carried columns, and the probabilities or why there are none."""
    with _BUILDING:
        answers = _dataset(shards, read_shard, settings, groups)
    yield from answers.iter_rows()


def _dataset(
    shards: Mapping[int, Shard], read_shard: ReadShard, settings: LlmSettings, groups: list[PlacementGroup]
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Blocks of a batch of the longest requests. Left alone, each shard would be one block, and an engine, which works
    # on several blocks at a time, would be at work on many shards at once and finish none before all. One by one, an
    # answer is a block too, so that it does not wait for others in an engine that may die of them.
    context.target_max_block_size = (
        1 if settings.batches == 1 else settings.batch_size * settings.max_tokens * _TOKEN_BYTES
    )
    with ray.data.DataContext.current(context):  # datasets keep the context that they were made in
        items = [
            {
                "shard": index,
                "file": shard.file,
                "rows": shard.rows.tolist(),
                "swapped": shard.swapped.tolist(),
                "requests": shard.requests.tolist(),
            }
            for index, shard in shards.items()
        ]
        requests = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _requests,
            fn_kwargs={
                "read_shard": read_shard,
                "batch_size": settings.batch_size,
                "endless": _endless(settings),
            },
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0,
            concurrency=1,  # shard after shard: what engines die of is looked for among the first unanswered
        )
        return engine(settings, _CARRIED, groups)(requests)


def _endless(settings: LlmSettings) -> int | None:
    """Tokens of a request that may never end in a model with a head (see `engine_options`), None if there is none."""
    longest = settings.engine.get("max_model_len")
    return None if longest is None or settings.mode == "judge" else int(longest)


def _requests(items: pa.Table, read_shard: ReadShard, batch_size: int, endless: int | None) -> Iterator[pa.Table]:
    """The requests of the shard in the one row of `items`, in their order.

    One of `endless` tokens fails before it is asked.
    """
    (item,) = items.to_pylist()
    records = read_shard(item["file"])
    rows, swapped = np.array(item["rows"]), np.array(item["swapped"], bool)
    columns = {order: records[name].combine_chunks() for order, name in ((False, "ab"), (True, "ba"))}
    lengths = {order: column.value_lengths().to_numpy() for order, column in columns.items()}
    size = np.where(swapped, lengths[True][rows], lengths[False][rows])
    reasons = records["reason"].to_pylist()
    too_long = f"a request of {endless} tokens, all that max_model_len allows, may never end in vLLM 0.29"
    for start in range(0, len(rows), batch_size):
        yield pa.Table.from_pylist(
            [
                {
                    "shard": item["shard"],
                    "request": item["requests"][n],
                    "tokens": int(size[n]),
                    "tokenized_prompt": columns[bool(swapped[n])][int(rows[n])].as_py(),
                    _ERROR: reasons[rows[n]] or (too_long if size[n] == endless else ""),
                }
                for n in range(start, min(start + batch_size, len(rows)))
            ],
            schema=_REQUESTS,
        )


class _Pending:
    """A shard whose answers are coming back."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.left = len(shard.requests)
        self._places: dict[int, int] | None = None  # of what is left; a dict for each shard at once is much memory
        self._probabilities = np.full((self.left, len(PROBABILITIES)), np.nan)
        self._reasons = [""] * self.left

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take in the answer to one request."""
        if self._places is None:
            self._places = {request: n for n, request in enumerate(self.shard.requests.tolist())}
        place = self._places.pop(answer["request"])  # a second answer to a request is a KeyError
        self.left -= 1
        if answer[_ERROR]:
            self._reasons[place] = answer[_ERROR]
            return
        probabilities = np.array([answer[name] for name in PROBABILITIES], dtype=np.float64)
        total = probabilities.sum()
        if not np.isfinite(total) or total <= 0 or probabilities.min() < 0:
            self._reasons[place] = f"the model gave {probabilities.tolist()}"
            return
        # The softmax is in the model's precision; in bfloat16 its sum misses 1 visibly.
        self._probabilities[place] = probabilities / total

    def rest(self, most: int) -> Shard:
        """Its first unanswered requests, so many at most."""
        if self._places is None:
            return _part(self.shard, slice(most))
        places = np.sort(np.fromiter(self._places.values(), np.int64))[:most]
        return _part(self.shard, places)

    def scores(self, seconds: float) -> ShardScores:
        """The shard's scores, once no answer is left to come."""
        return ShardScores(self.shard.key, self.shard.requests, self._probabilities, self._reasons, seconds)


def _part(shard: Shard, places: slice | npt.NDArray[np.int64]) -> Shard:
    return dataclasses.replace(
        shard, rows=shard.rows[places], swapped=shard.swapped[places], requests=shard.requests[places]
    )
