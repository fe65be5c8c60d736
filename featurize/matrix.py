"""Feature tables put side by side as one matrix, with the exchange of A and B that goes with its columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurize import ngrams
from featurize.catalogue import Column, exchange


@dataclass(frozen=True)
class Block:
    """An n-gram block as columns of a matrix.

    `part` says which texts it was made from; for responses, `pair` gives columns for A and for B, and `difference`
    one column per term, A minus B: half the width, and exactly antisymmetric.
    """

    name: str
    part: str
    view: str
    terms: Sequence[str]

    def columns(self) -> list[Column]:
        """The block's columns, in the order of `dense`."""
        views = {"prompt": ("prompt",), "response": ("a", "b") if self.view == "pair" else ("difference",)}[self.part]
        return [
            Column(self.name, f"{number:05d}", view, "weight", f"n-gram {term!r}")  # type: ignore[arg-type]
            for view in views
            for number, term in enumerate(self.terms)
        ]

    def dense(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """The block (n, width) of a shard with the columns that featurize made: prompt, or a and b."""
        width = len(self.terms)
        sides = {name: ngrams.to_dense(table[name].combine_chunks(), width) for name in table.column_names}
        if self.part == "prompt":
            return sides["prompt"]
        if self.view == "difference":
            return sides["a"] - sides["b"]
        return np.concatenate([sides["a"], sides["b"]], axis=1)


@dataclass(frozen=True)
class Layout:
    """The columns of a matrix: hand-made ones first, then each block's."""

    handmade: Sequence[Column]
    blocks: Sequence[Block]

    def columns(self) -> list[Column]:
        """Every column in order."""
        return [*self.handmade, *(column for block in self.blocks for column in block.columns())]

    def exchange(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """See featurize.catalogue.exchange."""
        return exchange(self.columns())

    def dense(self, handmade: pa.Table | None, blocks: Mapping[str, pa.Table]) -> npt.NDArray[np.float32]:
        """The matrix (n, d) of one shard from its feature tables."""
        parts = [block.dense(blocks[block.name]) for block in self.blocks]
        if handmade is not None:
            names = [column.name for column in self.handmade]
            parts.insert(0, np.stack([handmade[name].to_numpy() for name in names], axis=1))
        return np.concatenate(parts, axis=1)
