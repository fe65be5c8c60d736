"""Scoring records with a language model's three-way head: shards in, probabilities out, whole shard by whole shard."""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data

from infer.llm_checkpoint import check_checkpoint, require_vllm
from infer.llm_engine import engine
from infer.llm_settings import LlmSettings
from preference.packing import Packer
from preference.schema import PROBABILITIES, TEXTS
from preference.swap import swap_average

ReadShard = Callable[[str], pa.Table]
_ERROR: Final = "__inference_error__"  # the column of ray.data.llm that says why a row failed
_CARRIED: Final = ("shard", "row", "swapped", "id", "tokens")
_TOKEN_BYTES: Final = 4  # of int32, below
_REQUESTS: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("swapped", pa.bool_()),
        ("id", pa.string()),
        ("tokens", pa.int32()),
        ("tokenized_prompt", pa.list_(pa.int32())),
        (_ERROR, pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Shard:
    """Records that are scored and committed together. `key` means something to the caller's `read_shard` only."""

    key: str
    rows: int


@dataclasses.dataclass(frozen=True)
class ShardScores:
    """The predictions for one shard, in the order of its records.

    `probabilities` (n, 3) are in the order A, B, tie. Records that failed are in `failures` (id to reason) and in
    neither of the others. `tokens` were read by the model, both orders counted. `seconds` of wall clock passed since
    the shard before came back; the first shard's include the start of the engines.
    """

    key: str
    ids: list[str]
    probabilities: npt.NDArray[np.float64]
    failures: Mapping[str, str]
    tokens: int
    seconds: float


def score_shards(shards: Sequence[Shard], read_shard: ReadShard, settings: LlmSettings) -> Iterator[ShardScores]:
    """Score shards on one set of engines; each is yielded as soon as all its records are back.

    `read_shard` runs in Ray tasks, is pickled to them, and returns the columns id, prompt, response_a and response_b
    of `Shard.rows` records. Closing the iterator early ends the engines.

    Raises InputError, before an engine starts, if vLLM is missing or the checkpoint cannot score records.
    """
    require_vllm(settings.gpus_per_replica)
    check_checkpoint(settings.checkpoint, settings.max_tokens)
    return _score(shards, read_shard, settings)


def _score(shards: Sequence[Shard], read_shard: ReadShard, settings: LlmSettings) -> Iterator[ShardScores]:
    orders = 2 if settings.swap == "both" else 1
    pending = {index: _Pending(shard, orders) for index, shard in enumerate(shards)}
    for index, shard in enumerate(shards):
        if shard.rows == 0:
            yield pending.pop(index).scores(0.0)
    if not pending:
        return
    before = time.perf_counter()
    with contextlib.closing(
        _answers({index: one.shard for index, one in pending.items()}, read_shard, settings)
    ) as rows:
        for row in rows:
            one = pending[row["shard"]]
            one.add(row)
            if one.left == 0:
                del pending[row["shard"]]
                now = time.perf_counter()
                yield one.scores(now - before)
                before = now
    if pending:
        raise RuntimeError(f"answers are missing, first of shard {next(iter(pending.values())).shard.key}")


def _answers(shards: Mapping[int, Shard], read_shard: ReadShard, settings: LlmSettings) -> Generator[dict[str, Any]]:
    """One row per request, in any order: the carried columns, and the probabilities or why there are none."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Blocks of a batch of the longest requests. Left alone, each shard would be one block, and an engine, which works
    # on several blocks at a time, would be at work on many shards at once and finish none before all.
    context.target_max_block_size = settings.batch_size * settings.max_tokens * _TOKEN_BYTES
    with ray.data.DataContext.current(context):  # datasets keep the context that they were made in
        keys = ray.data.from_items(
            [{"shard": index, "key": shard.key, "rows": shard.rows} for index, shard in shards.items()],
            override_num_blocks=len(shards),
        )
        requests = keys.map_batches(
            _requests,
            fn_kwargs={"read_shard": read_shard, "settings": settings},
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0,
            concurrency=settings.replicas,
        )
        answers = engine(settings, _CARRIED)(requests)
        yield from answers.iter_rows()


def _requests(keys: pa.Table, read_shard: ReadShard, settings: LlmSettings) -> Iterator[pa.Table]:
    """The requests for the shard in the one row of `keys`."""
    (key,) = keys.to_pylist()
    records = read_shard(key["key"])
    if records.num_rows != key["rows"]:
        raise ValueError(f"shard {key['key']} has {records.num_rows} records, not {key['rows']}")
    packer = _packer(settings.checkpoint, settings.max_tokens)
    columns = records.select(["id", *TEXTS])
    number = itertools.count()
    for batch in columns.to_batches(max_chunksize=settings.batch_size):
        rows: list[dict[str, Any]] = []
        for record in batch.to_pylist():
            one = {"shard": key["shard"], "row": next(number), "id": record["id"], "tokens": 0, _ERROR: ""}
            try:
                packed = packer.pack_both(*(record[name] for name in TEXTS))
            except Exception as error:  # whatever is wrong with a record, the others are scored
                one[_ERROR] = f"cannot be packed: {type(error).__name__}: {error}"
                packed = ([], [])
            for swapped, ids in zip((False, True), packed, strict=True):
                if not swapped or settings.swap == "both":
                    rows.append(one | {"swapped": swapped, "tokens": len(ids), "tokenized_prompt": ids})
        yield pa.Table.from_pylist(rows, schema=_REQUESTS)


@functools.lru_cache(maxsize=1)
def _packer(checkpoint: str, max_tokens: int) -> Packer:
    from transformers import AutoTokenizer

    return Packer(AutoTokenizer.from_pretrained(checkpoint), max_tokens)


class _Pending:
    """A shard whose answers are coming back."""

    def __init__(self, shard: Shard, orders: int) -> None:
        self.shard = shard
        self.left = shard.rows * orders
        self._probabilities = np.full((orders, shard.rows, len(PROBABILITIES)), np.nan)
        self._ids = [""] * shard.rows
        self._reasons: dict[int, str] = {}
        self._tokens = 0

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take in the answer to one request."""
        row = answer["row"]
        self.left -= 1
        self._ids[row] = answer["id"]
        if answer[_ERROR]:
            self._reasons[row] = answer[_ERROR]
            return
        probabilities = np.array([answer[name] for name in PROBABILITIES], dtype=np.float64)
        total = probabilities.sum()
        if not np.isfinite(total) or total <= 0:
            self._reasons[row] = f"the model gave {probabilities.tolist()}"
            return
        self._tokens += answer["tokens"]
        # The softmax is in the model's precision; in bfloat16 its sum misses 1 visibly.
        self._probabilities[int(answer["swapped"]), row] = probabilities / total

    def scores(self, seconds: float) -> ShardScores:
        """The shard's scores, once no answer is left to come."""
        scored = [row for row in range(self.shard.rows) if row not in self._reasons]
        both = self._probabilities[:, scored]
        return ShardScores(
            key=self.shard.key,
            ids=[self._ids[row] for row in scored],
            probabilities=both[0] if len(both) == 1 else swap_average(both[0], both[1]),
            failures={self._ids[row]: reason for row, reason in self._reasons.items()},
            tokens=self._tokens,
            seconds=seconds,
        )
