"""Gather facts about each record's texts for blending: degenerate cases, and differences in length."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.shards import Item, map_shards
from featurize.text import Text
from infer.ensemble.fallbacks import degenerate_case
from infer.ensemble.length_debias import length_differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from core.arrays import Doubles, Mask, Rows
    from core.storage import Folder
    from infer.ensemble.fallbacks import CaseCodes
    from votes.records import Records


@dataclass(frozen=True)
class RecordFacts:
    """Facts about the answers of some records, in their order."""

    cases: CaseCodes  # (n,) see infer.ensemble.fallbacks
    length_differences: Doubles  # (n,) see infer.ensemble.length_debias

    def take(self, rows: Mask | Rows) -> RecordFacts:
        """Return the facts of some records."""
        return RecordFacts(self.cases[rows], self.length_differences[rows])


def read_record_facts(records: Records, splits: Sequence[str]) -> dict[str, RecordFacts]:
    """Return the facts of each split. Ray tasks read the texts and return only facts."""
    items: list[Item] = [{"shard": name} for split in splits for name in records.shards(split)]
    by_shard = {row["shard"]: row for row in map_shards(items, functools.partial(_read_shard, folder=records.folder))}
    return {
        split: RecordFacts(
            np.frombuffer(b"".join(by_shard[name]["cases"] for name in records.shards(split)), np.int8),
            np.frombuffer(b"".join(by_shard[name]["differences"] for name in records.shards(split)), np.float64),
        )
        for split in splits
    }


def _read_shard(item: Item, folder: Folder) -> Iterator[Item]:
    """Yield the cases and length differences of one shard, as bytes: one small cell each for Ray."""
    table = folder.read_table(item["shard"], ["response_a", "response_b"])
    pairs = [
        tuple(Text(turns).full.strip() for turns in pair)
        for pair in zip(table["response_a"].to_pylist(), table["response_b"].to_pylist(), strict=True)
    ]
    cases = np.array([degenerate_case(a, b) for a, b in pairs], np.int8)
    lengths = np.array([(len(a), len(b)) for a, b in pairs], np.int64)
    yield {
        "shard": item["shard"],
        "cases": cases.tobytes(),
        "differences": length_differences(lengths[:, 0], lengths[:, 1]).tobytes(),
    }
