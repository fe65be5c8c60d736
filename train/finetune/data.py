"""Packed records as fine-tuning reads them: token ids in Ray's object store, labels and folds beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from votes.swap import SWAPPED_LABEL

if TYPE_CHECKING:
    import ray
    import ray.data

# Of a table of packed records: the number among the records, and of both orders the ids and the parts they belong to.
PACKED = pa.schema(
    [
        ("row", pa.int64()),
        ("ab", pa.list_(pa.int32())),
        ("ba", pa.list_(pa.int32())),
        ("ab_parts", pa.list_(pa.int8())),
        ("ba_parts", pa.list_(pa.int8())),
    ]
)
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenData:
    """Packed records and what is known of each. Small enough to be sent around: the ids stay in the object store."""

    blocks: list[ray.ObjectRef[pa.Table]]  # of the schema PACKED, all records together
    lengths: npt.NDArray[np.int32]  # (n,) tokens of one order
    labels: npt.NDArray[np.int8]  # (n,)
    folds: npt.NDArray[np.int16]  # (n,)
    teacher: Probabilities | None = None  # (n, 3) to learn from beside the votes

    def targets(self, record: int, swapped: bool) -> tuple[int, npt.NDArray[np.float64] | None]:
        """Label and teacher's probabilities (3,) of a record, or of the record with A and B exchanged."""
        label = int(self.labels[record])
        teacher = None if self.teacher is None else self.teacher[record]
        if not swapped:
            return label, teacher
        return int(SWAPPED_LABEL[label]), None if teacher is None else teacher[SWAPPED_LABEL]


def as_blocks(packed: ray.data.Dataset) -> list[ray.ObjectRef[pa.Table]]:
    """The blocks of a dataset of the schema PACKED, made and kept in the object store.

    Workers of one node map them without a copy. They are not handed out as Ray Train's dataset shards: who gets which
    record there depends on who asks first, and a step would not be the same step again.
    """
    blocks: list[ray.ObjectRef[pa.Table]] = packed.materialize().to_arrow_refs()
    return blocks


class Sequences:
    """Token ids by record and order, read where they lie in the object store."""

    def __init__(self, blocks: Sequence[ray.ObjectRef[pa.Table]]) -> None:
        import ray

        self._columns: list[dict[str, tuple[Any, Any]]] = []
        places: list[npt.NDArray[np.int64]] = []
        for number, table in enumerate(ray.get(list(blocks))):
            table = table.combine_chunks()
            self._columns.append({name: _flat(table[name]) for name in PACKED.names if name != "row"})
            rows = table["row"].to_numpy()
            places.append(np.stack([rows, np.full(len(rows), number), np.arange(len(rows))], axis=1))
        found = np.concatenate(places)
        self._places = found[np.argsort(found[:, 0]), 1:]

    def ids(self, record: int, swapped: bool) -> npt.NDArray[np.int32]:
        """Token ids of one record, in the order A, B or B, A."""
        return self._list(record, "ba" if swapped else "ab")

    def parts(self, record: int, swapped: bool) -> npt.NDArray[np.int8]:
        """The part that each of these ids belongs to; see featurize.tokens.packing.Packer.pack_both_marked."""
        return self._list(record, "ba_parts" if swapped else "ab_parts")

    def _list(self, record: int, name: str) -> npt.NDArray[Any]:
        block, row = self._places[record]
        offsets, values = self._columns[block][name]
        found: npt.NDArray[Any] = values[offsets[row] : offsets[row + 1]]
        return found


def _flat(column: pa.ChunkedArray) -> tuple[Any, Any]:
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    return lists.offsets.to_numpy(), lists.values.to_numpy()
