"""Describe feature columns, the blocks of columns in files, and how swapping A and B changes columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from core.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt
    import scipy.sparse

    from core.arrays import Doubles, Floats, Ints

# The side that a number describes: the prompt, one answer, both compared, or both in any order.
View = Literal["prompt", "a", "b", "difference", "ratio", "pair"]
_EXCHANGED: dict[View, View] = {"a": "b", "b": "a"}
_ANTISYMMETRIC: tuple[View, ...] = ("difference", "ratio")


@dataclass(frozen=True)
class Feature:
    """A number computed from one text or a pair of texts: its name, unit and meaning."""

    name: str
    unit: str
    description: str


@dataclass(frozen=True)
class Column:
    """A feature seen from one side of the pair: the prompt, an answer, or both answers together."""

    family: str  # the name of the entry of featurize.families
    feature: str
    view: View
    unit: str
    description: str

    @property
    def name(self) -> str:
        """The name in files and models: family, feature and view."""
        return f"{self.family}_{self.feature}_{self.view}"

    def as_dict(self) -> dict[str, Any]:
        """Return the entry that the catalog has for the column."""
        return {"name": self.name, **asdict(self)}


def view_columns(family: str, features: Sequence[Feature], views: Sequence[View]) -> list[Column]:
    """Return one column for each view and feature, in that order."""
    return [
        Column(family, feature.name, view, "ratio" if view == "ratio" else feature.unit, feature.description)
        for view in views
        for feature in features
    ]


def cosine_columns(family: str, description: str) -> list[Column]:
    """Return the columns for the cosines of a record's texts: each answer with the prompt, and both answers."""
    return [
        *(
            Column(family, "to_prompt", "a" if side == "A" else "b", "cosine", f"{description} of prompt and {side}")
            for side in "AB"
        ),
        Column(family, "to_prompt", "difference", "cosine", f"{description}: prompt and A minus prompt and B"),
        Column(family, "of_answers", "pair", "cosine", f"{description} of A and B"),
    ]


def swap_columns(columns: Sequence[Column]) -> tuple[Ints, Floats]:
    """Return a permutation (d,) and signs (d,): a swapped record's features are `features[:, permutation] * signs`.

    Raises KeyError if a column of A has no counterpart of B.
    """
    index = {(column.family, column.feature, column.view): n for n, column in enumerate(columns)}
    permutation = [index[c.family, c.feature, _EXCHANGED.get(c.view, c.view)] for c in columns]
    signs = [-1.0 if column.view in _ANTISYMMETRIC else 1.0 for column in columns]
    return np.array(permutation, dtype=np.int64), np.array(signs, dtype=np.float32)


class Block(ABC):
    """The columns of one entry of featurize.families. `folder` is the folder of their files, below features/."""

    folder: str

    @abstractmethod
    def columns(self) -> list[Column]:
        """Return the block's columns, in the order of `dense`."""

    @abstractmethod
    def dense(self, table: pa.Table) -> Floats:
        """Return the block (n, width) of one shard's file."""

    def keep(self, families: Sequence[str]) -> bool:
        """Return whether any column is of these families."""
        return any(column.family in families for column in self.columns())

    def schema(self) -> dict[str, str]:
        """Return the type of each column that its files hold under the column's name."""
        return {}

    def catalog(self) -> list[dict[str, Any]]:
        """Return the columns' entries in the catalog of features."""
        return [column.as_dict() for column in self.columns()]


def _catalog_group(columns: Sequence[Column], description: str) -> dict[str, Any]:
    """Return one entry of the catalog for many columns that differ only by their number."""
    last = columns[-1]
    return {
        "name": f"{last.family}_*",
        "family": last.family,
        "feature": "*",
        "view": "/".join(dict.fromkeys(column.view for column in columns)),
        "unit": last.unit,
        "description": description,
        "columns": len(columns),
    }


@dataclass(frozen=True)
class PlainBlock(Block):
    """Files with one column of numbers for each feature: hand-made ones, cosines."""

    folder: str
    features: Sequence[Column]

    def columns(self) -> list[Column]:
        """Return the columns as given."""
        return list(self.features)

    def dense(self, table: pa.Table) -> Floats:
        """Return the columns (n, width). Raises InputError if the file lacks one."""
        _require(table, [column.name for column in self.features], self.folder)
        return np.stack([table[column.name].to_numpy() for column in self.features], axis=1)

    def schema(self) -> dict[str, str]:
        """Return float32 for every column."""
        return {column.name: "float32" for column in self.features}


@dataclass(frozen=True)
class NgramBlock(Block):
    """Files with a sparse row of terms for the prompt, or for A and for B.

    For responses, `view` pair gives columns for A and for B. Difference gives one column for each term, A minus B: half
    the width, and exactly antisymmetric.
    """

    folder: str
    name: str
    part: Literal["prompt", "response"]
    view: Literal["pair", "difference"]
    terms: Sequence[str]
    description: str = ""  # of all columns together

    def columns(self) -> list[Column]:
        """Return one column for each view and term."""
        views: tuple[View, ...] = ("prompt",)
        if self.part == "response":
            views = ("a", "b") if self.view == "pair" else ("difference",)
        return [
            Column(self.name, f"{number:05d}", view, "weight", f"n-gram {term!r}")
            for view in views
            for number, term in enumerate(self.terms)
        ]

    def sparse(self, table: pa.Table) -> scipy.sparse.csr_matrix:
        """Return the block (n, width) of a file as a sparse matrix."""
        import scipy.sparse

        names = ["prompt"] if self.part == "prompt" else ["a", "b"]
        _require(table, names, self.folder)
        sides = [sparse_from_lists(table[name].combine_chunks(), len(self.terms)) for name in names]
        if self.part == "response" and self.view == "difference":
            return sides[0] - sides[1]
        return scipy.sparse.hstack(sides, format="csr")

    def dense(self, table: pa.Table) -> Floats:
        """Return the same as an array (n, width)."""
        return np.asarray(self.sparse(table).toarray())

    def catalog(self) -> list[dict[str, Any]]:
        """Return one entry for all terms."""
        description = self.description or f"weights of {len(self.terms)} n-grams"
        return [_catalog_group(self.columns(), description)]


@dataclass(frozen=True)
class VectorBlock(Block):
    """Files with a vector for each text, and the cosines between them."""

    folder: str
    family: str
    vectors: str  # what the vectors are, for descriptions
    dimensions: int
    view: Literal["pair", "difference"]
    cosines: bool = True

    def columns(self) -> list[Column]:
        """Return the cosines, then one column for each dimension: of the prompt, and of A and B or A minus B."""
        views: tuple[View, ...] = ("prompt", "a", "b") if self.view == "pair" else ("prompt", "difference")
        return [
            *(cosine_columns(self.family, f"cosine of the {self.vectors}s") if self.cosines else []),
            *(
                Column(self.family, f"{number:03d}", view, "component", f"dimension {number} of the {self.vectors}")
                for view in views
                for number in range(self.dimensions)
            ),
        ]

    def dense(self, table: pa.Table) -> Floats:
        """Return the block (n, width) of a file with the columns cosines, prompt, a and b."""
        names = ["cosines", "prompt", "a", "b"]
        _require(table, names, self.folder)
        cosines, prompt, a, b = (vectors_from_lists(table[name]) for name in names)
        answers = [a, b] if self.view == "pair" else [a - b]
        return np.concatenate([*([cosines] if self.cosines else []), prompt, *answers], axis=1)

    def catalog(self) -> list[dict[str, Any]]:
        """Return an entry for each cosine, and one for all dimensions."""
        columns = self.columns()
        named = [column for column in columns if column.unit == "cosine"]
        numbered = [column for column in columns if column.unit != "cosine"]
        description = f"{self.dimensions} dimensions of the {self.vectors}"
        return [*(column.as_dict() for column in named), _catalog_group(numbered, description)]


@dataclass(frozen=True)
class Layout:
    """The columns of a matrix, block after block."""

    blocks: Sequence[Block]

    def columns(self) -> list[Column]:
        """Return every column in order."""
        return [column for block in self.blocks for column in block.columns()]

    def exchange(self) -> tuple[Ints, Floats]:
        """Return permutation and signs of all columns; see `swap_columns`."""
        return swap_columns(self.columns())

    def families(self) -> list[str]:
        """Return the names of the columns' families, in order."""
        return list(dict.fromkeys(column.family for column in self.columns()))

    def of(self, families: Sequence[str]) -> Layout:
        """Return the columns of these families only, in the same order."""
        return Layout([block for block in self.blocks if block.keep(families)])

    def dense(self, tables: Mapping[str, pa.Table]) -> Floats:
        """Return the matrix (n, d) of one shard from its feature tables by folder."""
        return np.concatenate([block.dense(tables[block.folder]) for block in self.blocks], axis=1)


def vectors_to_lists(vectors: Floats) -> pa.FixedSizeListArray:
    """Return vectors (n, d) as an Arrow array of n lists."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def vectors_from_lists(column: pa.ChunkedArray) -> Floats:
    """Return the vectors (n, d) behind the lists of `vectors_to_lists`."""
    lists = column.combine_chunks()
    flat: Floats = lists.flatten().to_numpy()
    return flat.reshape(len(lists), lists.type.list_size)


def sparse_to_lists(offsets: Ints, columns: npt.NDArray[np.int32], values: Doubles) -> pa.ListArray:
    """Return a CSR matrix as one list for each row of structs (index int32, value float32)."""
    entries = pa.StructArray.from_arrays(
        [pa.array(columns.astype(np.int32)), pa.array(values.astype(np.float32))], ["index", "value"]
    )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), entries)


def sparse_from_lists(rows: pa.ListArray, width: int) -> scipy.sparse.csr_matrix:
    """Return the matrix (n, width) behind `sparse_to_lists`."""
    import scipy.sparse

    entries = rows.flatten()
    offsets = np.concatenate([[0], rows.value_lengths().to_numpy().cumsum()])
    arrays = (entries.field("value").to_numpy(), entries.field("index").to_numpy(), offsets)
    return scipy.sparse.csr_matrix(arrays, shape=(len(rows), width))


def stack_cosines(to_a: Floats, to_b: Floats, of_answers: Floats) -> Floats:
    """Return the values (n, 4) of `cosine_columns`, from three cosines (n,) each."""
    return np.stack([to_a, to_b, to_a - to_b, of_answers], axis=1).astype(np.float32)


def vector_cosines(prompt: Floats, a: Floats, b: Floats) -> Floats:
    """Return the cosines (n, 4) of vectors (n, d) of prompts and answers. A zero vector has the cosine 0."""
    prompt, a, b = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        for vectors in (prompt, a, b)
    )
    return stack_cosines(*((left * right).sum(axis=1) for left, right in ((prompt, a), (prompt, b), (a, b))))


def _require(table: pa.Table, names: Sequence[str], folder: str) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(
            f"missing column {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            where=f"features/{folder}",
            fix="run `tiebreak featurize` again with --force.",
        )
