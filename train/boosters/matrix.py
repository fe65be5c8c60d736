"""Store features for boosters: dense columns, then sparse columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse

    from core.arrays import Floats, Mask, Rows


@dataclass(frozen=True)
class Matrix:
    """Features (n, d + s) in two parts. In Ray's object store both are read without a copy.

    A sparse entry takes 8 bytes, a dense one 4. So sparse columns save memory below one entry in two.
    """

    dense: Floats  # (n, d), without nan
    sparse: scipy.sparse.csr_matrix | None = None  # (n, s)

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def width(self) -> int:
        """Columns of both parts."""
        return int(self.dense.shape[1] + (0 if self.sparse is None else self.sparse.shape[1]))

    def rows(self, chosen: Rows | slice) -> Matrix:
        """Return some rows, in this order; a view of the dense part if they are a slice."""
        return Matrix(self.dense[chosen], None if self.sparse is None else self.sparse[chosen])

    def exchanged(self, permutation: Rows, signs: Floats) -> Matrix:
        """Return the same records with A and B exchanged: column j is column permutation[j] times signs[j].

        No column moves between the dense and the sparse part.
        """
        width = self.dense.shape[1]
        # take() along rows keeps C order, which fancy indexing of columns does not.
        dense = np.take(self.dense, permutation[:width], axis=1)
        dense *= signs[:width]
        if self.sparse is None:
            return Matrix(dense)
        import scipy.sparse

        # The permutation is its own inverse, so it also says where an entry goes.
        columns = (permutation[width:] - width)[self.sparse.indices]
        values = self.sparse.data * signs[width:][columns]
        sparse = scipy.sparse.csr_matrix(
            (values, columns.astype(self.sparse.indices.dtype), self.sparse.indptr), shape=self.sparse.shape
        )
        sparse.sort_indices()
        return Matrix(dense, sparse)

    def compare(self, other: Matrix) -> Rows:
        """Return the sign (n,) of each row's first difference from the same row of `other`; 0 for equal rows."""
        signs = np.zeros(len(self), np.intp)
        undecided = np.arange(len(self))
        # Most rows differ in the first columns, so this reads few of them.
        for column in range(self.dense.shape[1]):
            if not len(undecided):
                return signs
            differences = self.dense[undecided, column] - other.dense[undecided, column]
            signs[undecided] = np.sign(differences)
            undecided = undecided[differences == 0]
        if self.sparse is not None and other.sparse is not None and len(undecided):
            differences = (self.sparse[undecided] - other.sparse[undecided]).tocsr()
            differences.eliminate_zeros()
            differences.sort_indices()
            filled = np.diff(differences.indptr) > 0
            signs[undecided[filled]] = np.sign(differences.data[differences.indptr[:-1][filled]])
        return signs

    def joined(self) -> Any:  # noqa: ANN401 - an array or a CSR matrix
        """Return the libraries' input: the dense part alone, or one CSR matrix. In the CSR matrix the dense part keeps
        its zeros as entries. XGBoost treats absent entries as missing. That is right for absent terms, but not for a
        length of 0.
        """
        if self.sparse is None:
            return self.dense
        import scipy.sparse

        count, width = self.dense.shape
        explicit = scipy.sparse.csr_matrix(
            (self.dense.ravel(), np.tile(np.arange(width, dtype=np.int32), count), np.arange(count + 1) * width),
            shape=(count, width),
        )
        return scipy.sparse.hstack([explicit, self.sparse], format="csr", dtype=np.float32)


def exchange_rows(left: Matrix, right: Matrix, chosen: Mask) -> tuple[Matrix, Matrix]:
    """Return two matrices with the chosen rows (n,) of one in the other."""
    dense = [np.where(chosen[:, None], b.dense, a.dense) for a, b in ((left, right), (right, left))]
    if left.sparse is None or right.sparse is None:
        return Matrix(dense[0]), Matrix(dense[1])
    import scipy.sparse

    both = scipy.sparse.vstack([left.sparse, right.sparse], format="csr")
    places = np.arange(len(left)) + len(left) * chosen
    return Matrix(dense[0], both[places]), Matrix(dense[1], both[(places + len(left)) % (2 * len(left))])


def stack_rows(parts: Sequence[Matrix]) -> Matrix:
    """Return the rows of all parts, one after another; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    dense = np.concatenate([part.dense for part in parts])
    sparse = [part.sparse for part in parts if part.sparse is not None]
    if not sparse:
        return Matrix(dense)
    import scipy.sparse

    return Matrix(dense, scipy.sparse.vstack(sparse, format="csr"))
