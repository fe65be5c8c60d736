"""Stream requests through engines under Ray Data, with a timeout for replies."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import ray.data
from ray.util.placement_group import PlacementGroup, remove_placement_group

from infer.scoring.job import ERROR_COLUMN

if TYPE_CHECKING:
    from infer.scoring.job import RetryLevel, ScoringJob
    from infer.scoring.requests import RequestShard

ShardReader = Callable[[str], pa.Table]  # columns ab and ba (token ids of both orders), and reason (no ids)
EngineStream = Callable[[ray.data.Dataset], ray.data.Dataset]
# Engines for a job and level. They pass these columns through, and add their placement groups to the list.
EngineFactory = Callable[["ScoringJob", "RetryLevel", tuple[str, ...], list[PlacementGroup]], EngineStream]
_CARRIED: Final = ("shard", "request", "tokens")
# Ray Data's context and the logging level are global: only one thread at a time may change them.
_BUILDING: Final = threading.Lock()
_TOKEN_BYTES: Final = 4  # of int32, below
_REQUESTS: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("request", pa.int64()),
        ("tokens", pa.int32()),
        ("tokenized_prompt", pa.list_(pa.int32())),
        (ERROR_COLUMN, pa.string()),
    ]
)


class RequestStream:
    """Asks the engines of one job. `read_shard` runs in Ray tasks, and is pickled to them."""

    def __init__(self, job: ScoringJob, read_shard: ShardReader, make_engines: EngineFactory) -> None:
        self._job = job
        self._read_shard = read_shard
        self._make_engines = make_engines

    def __call__(self, shards: Mapping[int, RequestShard], level: RetryLevel) -> Generator[dict[str, Any]]:
        """Yield one row for each request, in any order: the carried columns, and probabilities or an error.

        What the engines hold of the cluster is released at the end. Raises RuntimeError if no reply comes for
        `timeout_s` seconds.
        """
        groups: list[PlacementGroup] = []
        rows = with_timeout(self._replies(shards, level, groups), self._job.llm.timeout_s)
        try:
            with contextlib.closing(rows):
                yield from rows
        finally:
            for group in groups:
                remove_placement_group(group)

    def _replies(
        self, shards: Mapping[int, RequestShard], level: RetryLevel, groups: list[PlacementGroup]
    ) -> Generator[dict[str, Any]]:
        with _BUILDING:
            replies = self._dataset(shards, level, groups)
        yield from replies.iter_rows()

    def _dataset(
        self, shards: Mapping[int, RequestShard], level: RetryLevel, groups: list[PlacementGroup]
    ) -> ray.data.Dataset:
        llm = self._job.llm
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # Blocks of a batch of the longest requests. By default each shard would be one block. An engine works on
        # several blocks at a time, so it would finish no shard before all. One at a time, a reply is a block too. So it
        # does not wait for requests that may kill the engine.
        batch_bytes = level.batch_size * llm.max_tokens * _TOKEN_BYTES
        context.target_max_block_size = 1 if level.one_by_one else batch_bytes
        with ray.data.DataContext.current(context):  # datasets keep the context that they were made in
            items = [
                {
                    "shard": number,
                    "packed_shard": shard.packed_shard,
                    "rows": shard.rows.tolist(),
                    "swapped": shard.swapped,
                    "requests": shard.requests.tolist(),
                }
                for number, shard in shards.items()
            ]
            requests = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                shard_requests,
                fn_kwargs={
                    "read_shard": self._read_shard,
                    "batch_size": level.batch_size,
                    "hanging_tokens": hanging_request_tokens(self._job),
                },
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0,
                concurrency=1,  # shard after shard: an engine's death counts for the first unanswered requests
            )
            return self._make_engines(self._job, level, _CARRIED, groups)(requests)


def with_timeout(rows: Generator[dict[str, Any]], timeout_s: float) -> Generator[dict[str, Any]]:
    """Yield the rows. Raises RuntimeError if none comes for so many seconds."""
    received: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(maxsize=1000)
    closed = threading.Event()

    def read() -> None:
        try:
            with contextlib.closing(rows):
                for row in rows:
                    received.put(row)
                    if closed.is_set():
                        return
            received.put(None)
        except BaseException as error:
            received.put(error)

    reader = threading.Thread(target=read, daemon=True, name="llm-replies")
    reader.start()
    try:
        while True:
            try:
                row = received.get(timeout=timeout_s)
            except queue.Empty:
                raise RuntimeError(
                    f"no reply from the model for {timeout_s:g} s; either its engine cannot start or keep running "
                    "(Ray's logs say why), or it needs more time: raise llms.timeout_s"
                ) from None
            if row is None:
                return
            if isinstance(row, BaseException):
                raise row
            yield row
    finally:
        closed.set()
        with contextlib.suppress(queue.Empty):
            while True:
                received.get_nowait()
        reader.join(timeout=30)


def hanging_request_tokens(job: ScoringJob) -> int | None:
    """Return the length of a request that may never end; None if there is none. See `engine_options`."""
    longest = job.llm.engine_args.get("max_model_len")
    return None if longest is None or not job.mode.hangs_at_max_model_len else int(longest)


def shard_requests(
    items: pa.Table, read_shard: ShardReader, batch_size: int, hanging_tokens: int | None
) -> Iterator[pa.Table]:
    """Yield the requests of the shard in the one row of `items`, in their order.

    A request of `hanging_tokens` tokens fails without being asked.
    """
    (item,) = items.to_pylist()
    records = read_shard(item["packed_shard"])
    rows = np.array(item["rows"])
    ids = records["ba" if item["swapped"] else "ab"].combine_chunks()
    lengths = ids.value_lengths().to_numpy()[rows]
    reasons = records["reason"].to_pylist()
    too_long = f"a request of {hanging_tokens} tokens, all that max_model_len allows, may never end in vLLM 0.29"
    for start in range(0, len(rows), batch_size):
        yield pa.Table.from_pylist(
            [
                {
                    "shard": item["shard"],
                    "request": item["requests"][n],
                    "tokens": int(lengths[n]),
                    "tokenized_prompt": ids[int(rows[n])].as_py(),
                    ERROR_COLUMN: reasons[rows[n]] or (too_long if lengths[n] == hanging_tokens else ""),
                }
                for n in range(start, min(start + batch_size, len(rows)))
            ],
            schema=_REQUESTS,
        )
