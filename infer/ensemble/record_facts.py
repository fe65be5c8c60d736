"""What blending asks of the answers' texts, gathered shard by shard: degenerate cases, and differences in length."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.shards import Item, map_shards
from featurize.text import Text
from infer.ensemble.fallbacks import Codes, case_of
from infer.ensemble.length_debias import length_differences

if TYPE_CHECKING:
    from core.storage import Folder
    from infer.ensemble.pools import Floats
    from votes.records import Records


@dataclass(frozen=True)
class Answers:
    """The answers of a split, in input order."""

    cases: Codes  # (n,) see infer.ensemble.fallbacks
    differences: Floats  # (n,) of their lengths; see infer.ensemble.length_debias


def read_answers(records: Records, splits: Sequence[str]) -> dict[str, Answers]:
    """The answers of each split. Needs Ray; texts stay with its tasks."""
    shards = [name for split in splits for name in records.shards(split)]
    look = functools.partial(_look, folder=records.folder)
    found = {row["shard"]: row for row in map_shards([{"shard": name} for name in shards], look)}
    return {
        split: Answers(
            np.frombuffer(b"".join(found[name]["cases"] for name in records.shards(split)), np.int8),
            np.frombuffer(b"".join(found[name]["differences"] for name in records.shards(split)), np.float64),
        )
        for split in splits
    }


def _look(item: Item, folder: Folder) -> Iterator[Item]:
    """The cases and length differences of one shard, as bytes: one small cell each for Ray."""
    table = folder.read_table(item["shard"], ["response_a", "response_b"])
    pairs = [
        tuple(Text(turns).full.strip() for turns in pair)
        for pair in zip(table["response_a"].to_pylist(), table["response_b"].to_pylist(), strict=True)
    ]
    cases = np.array([case_of(a, b) for a, b in pairs], np.int8)
    lengths = np.array([(len(a), len(b)) for a, b in pairs], np.int64)
    yield {
        "shard": item["shard"],
        "cases": cases.tobytes(),
        "differences": length_differences(lengths[:, 0], lengths[:, 1]).tobytes(),
    }
