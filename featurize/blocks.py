"""Feature files put side by side as one matrix, with the exchange of A and B that goes with its columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import InputError
from featurize.columns import Column, View, exchange
from featurize.families.similarity import cosine_columns
from featurize.ngrams import vectorize

if TYPE_CHECKING:
    import scipy.sparse

Floats = npt.NDArray[np.float32]


class Block(Protocol):
    """One kind of feature file as columns of a matrix. `folder` is where its files are, below features/."""

    @property
    def folder(self) -> str:
        """The folder of its files below features/."""

    def columns(self) -> list[Column]:
        """The block's columns, in the order of `dense`."""

    def dense(self, table: pa.Table) -> Floats:
        """The block (n, width) of one shard's file."""


@dataclass(frozen=True)
class PlainBlock:
    """Files with one column of numbers for each feature: hand-made ones, cosines."""

    folder: str
    features: Sequence[Column]

    def columns(self) -> list[Column]:
        """The columns as given."""
        return list(self.features)

    def dense(self, table: pa.Table) -> Floats:
        """The columns (n, width). Raises InputError if the file lacks one."""
        _require(table, [column.name for column in self.features], self.folder)
        return np.stack([table[column.name].to_numpy() for column in self.features], axis=1)


@dataclass(frozen=True)
class NgramBlock:
    """Sparse n-gram files.

    `part` says which texts they were made from; for responses, `view` pair gives columns for A and for B, and
    difference one column per term, A minus B: half the width, and exactly antisymmetric.
    """

    name: str
    part: Literal["prompt", "response"]
    view: Literal["pair", "difference"]
    terms: Sequence[str]

    @property
    def folder(self) -> str:
        """ngrams/ and the block's name."""
        return f"ngrams/{self.name}"

    def columns(self) -> list[Column]:
        """One column per view and term."""
        views: tuple[View, ...] = ("prompt",)
        if self.part == "response":
            views = ("a", "b") if self.view == "pair" else ("difference",)
        return [
            Column(self.name, f"{number:05d}", view, "weight", f"n-gram {term!r}")
            for view in views
            for number, term in enumerate(self.terms)
        ]

    def sparse(self, table: pa.Table) -> scipy.sparse.csr_matrix:
        """The block (n, width) of a file with a sparse row of terms for the prompt, or for A and B."""
        import scipy.sparse

        names = ["prompt"] if self.part == "prompt" else ["a", "b"]
        _require(table, names, self.folder)
        sides = [vectorize.to_csr(table[name].combine_chunks(), len(self.terms)) for name in names]
        if self.part == "response" and self.view == "difference":
            return sides[0] - sides[1]
        return scipy.sparse.hstack(sides, format="csr")

    def dense(self, table: pa.Table) -> Floats:
        """The same as an array (n, width)."""
        return np.asarray(self.sparse(table).toarray())


@dataclass(frozen=True)
class VectorBlock:
    """Files with a vector for each text, and the cosines between them."""

    folder: str
    family: str
    what: str  # what the vectors are, for descriptions
    dimensions: int
    view: Literal["pair", "difference"]
    cosines: bool = True

    def columns(self) -> list[Column]:
        """The cosines, then one column per dimension for the prompt and for A and B, or for A minus B."""
        views: tuple[View, ...] = ("prompt", "a", "b") if self.view == "pair" else ("prompt", "difference")
        return [
            *(cosine_columns(self.family, f"cosine of the {self.what}s") if self.cosines else []),
            *(
                Column(self.family, f"{number:03d}", view, "component", f"dimension {number} of the {self.what}")
                for view in views
                for number in range(self.dimensions)
            ),
        ]

    def dense(self, table: pa.Table) -> Floats:
        """The block (n, width) of a file with the columns cosines, prompt, a and b."""
        names = ["cosines", "prompt", "a", "b"]
        _require(table, names, self.folder)
        cosines, prompt, a, b = (from_lists(table[name]) for name in names)
        answers = [a, b] if self.view == "pair" else [a - b]
        return np.concatenate([*([cosines] if self.cosines else []), prompt, *answers], axis=1)


@dataclass(frozen=True)
class Layout:
    """The columns of a matrix, block after block."""

    blocks: Sequence[Block]

    def columns(self) -> list[Column]:
        """Every column in order."""
        return [column for block in self.blocks for column in block.columns()]

    def exchange(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """See featurize.columns.exchange."""
        return exchange(self.columns())

    def families(self) -> list[str]:
        """Families and n-gram blocks, in order."""
        return list(dict.fromkeys(column.family for column in self.columns()))

    def of(self, families: Sequence[str]) -> Layout:
        """The columns of these families and n-gram blocks alone."""
        blocks: list[Block] = []
        for block in self.blocks:
            kept = [column for column in block.columns() if column.family in families]
            if isinstance(block, PlainBlock) and kept:
                blocks.append(PlainBlock(block.folder, kept))
            elif kept:
                blocks.append(block)
        return Layout(blocks)

    def dense(self, tables: Mapping[str, pa.Table]) -> Floats:
        """The matrix (n, d) of one shard from its feature tables by folder."""
        return np.concatenate([block.dense(tables[block.folder]) for block in self.blocks], axis=1)


def to_lists(vectors: Floats) -> pa.FixedSizeListArray:
    """Vectors (n, d) as an Arrow array of n lists."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def from_lists(column: pa.ChunkedArray) -> Floats:
    """The vectors (n, d) behind `to_lists`."""
    lists = column.combine_chunks()
    flat: Floats = lists.flatten().to_numpy()
    return flat.reshape(len(lists), lists.type.list_size)


def _require(table: pa.Table, names: Sequence[str], folder: str) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(
            f"missing column {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            where=f"features/{folder}",
            fix="run ray_jobs.featurize again with --force.",
        )
