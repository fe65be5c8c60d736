"""Store features for boosters: dense columns, then sparse columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse

    from core.arrays import Floats, Rows


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
