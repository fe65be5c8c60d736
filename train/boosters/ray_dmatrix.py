"""A fold's records as a matrix of the wrappers, for folds that several training processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import ray

if TYPE_CHECKING:
    from train.boosters.data import BoosterData
    from train.boosters.matrix import Rows


def fold_matrix(
    base: type,
    shared: list[ray.ObjectRef[BoosterData]],
    rows: Rows,
    both_orders: bool,
    whole: bool = False,
) -> Any:  # noqa: ANN401 - the wrapper's
    """A RayDMatrix (the class `base`) of some records.

    Each process reads its share of the rows from the object store, sparse ones as they are; the wrappers' own matrices
    would put dense copies of every fold there. With `whole` each process gets all rows.
    """

    class FoldMatrix(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
            self.loaded = True

        def get_data(self, rank: int, num_actors: int | None = None) -> dict[str, Any]:
            chosen = rows if whole else rows[rank :: num_actors or 1]
            sample = ray.get(shared[0]).sample(chosen, both_orders)
            absent = ("feature_weights", "qid", "base_margin", "label_lower_bound", "label_upper_bound")
            return {
                "data": _with_length(sample.features.joined()),
                "label": sample.labels.astype(np.float32),
                "weight": sample.weights,
                **dict.fromkeys(absent),
            }

        def assign_shards_to_actors(self, actors: object) -> bool:
            return False

        def update_matrix_properties(self, matrix: object) -> None:
            pass

    return FoldMatrix()


def _with_length(features: Any) -> Any:  # noqa: ANN401 - an array or a CSR matrix
    """The wrappers ask for len(), which SciPy's matrices refuse."""
    if isinstance(features, np.ndarray):
        return features
    import scipy.sparse

    class Sized(scipy.sparse.csr_matrix):  # type: ignore[misc]
        def __len__(self) -> int:
            return int(self.shape[0])

    return Sized(features)
