"""Read packed records for fine-tuning: token ids in Ray's object store, with labels and folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurize.tokens.columns import PACKED_SCHEMA
from votes.swap import SWAPPED_LABEL

if TYPE_CHECKING:
    import ray

    from core.arrays import Doubles, Folds, Ints, Probabilities


@dataclass(frozen=True)
class TokenData:
    """Packed records and their votes. It is small enough to be sent to workers: the ids stay in the object store."""

    blocks: list[ray.ObjectRef[pa.Table]]  # of the schema PACKED_SCHEMA, all records together
    lengths: npt.NDArray[np.int32]  # (n,) tokens of one order
    votes: Doubles  # (n, k) vote counts, divided by their mean
    folds: Folds  # (n,)
    teacher: Probabilities | None = None  # (n, k) to learn from, in addition to the votes

    @property
    def classes(self) -> int:
        """Number of outcomes."""
        return int(self.votes.shape[1])

    def targets(self, record: int, swapped: bool) -> tuple[Doubles, Doubles | None]:
        """Return vote counts and teacher's probabilities (k,) of a record, or of it with A and B swapped."""
        votes, teacher = self.votes[record], None if self.teacher is None else self.teacher[record]
        if not swapped:
            return votes, teacher
        other = SWAPPED_LABEL[: self.classes]
        return votes[other], None if teacher is None else teacher[other]


class TokenReader:
    """Reads token ids by record and order, without copying them out of the object store."""

    def __init__(self, blocks: Sequence[ray.ObjectRef[pa.Table]]) -> None:
        import ray

        self._columns: list[dict[str, tuple[Any, Any]]] = []
        positions: list[Ints] = []
        for number, table in enumerate(ray.get(list(blocks))):
            table = table.combine_chunks()
            self._columns.append(
                {name: _offsets_and_values(table[name]) for name in PACKED_SCHEMA.names if name != "row"}
            )
            rows = table["row"].to_numpy()
            positions.append(np.stack([rows, np.full(len(rows), number), np.arange(len(rows))], axis=1))
        by_block = np.concatenate(positions)
        self._positions = by_block[np.argsort(by_block[:, 0]), 1:]

    def ids(self, record: int, swapped: bool) -> npt.NDArray[np.int32]:
        """Return the token ids of one record, in the order A, B or B, A."""
        return self._list(record, "ba" if swapped else "ab")

    def parts(self, record: int, swapped: bool) -> npt.NDArray[np.int8]:
        """Return the part that each id belongs to; see featurize.tokens.packing.Packer.pack_both_marked."""
        return self._list(record, "ba_parts" if swapped else "ab_parts")

    def _list(self, record: int, name: str) -> npt.NDArray[Any]:
        block, row = self._positions[record]
        offsets, values = self._columns[block][name]
        result: npt.NDArray[Any] = values[offsets[row] : offsets[row + 1]]
        return result


def _offsets_and_values(column: pa.ChunkedArray) -> tuple[Any, Any]:
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    return lists.offsets.to_numpy(), lists.values.to_numpy()
