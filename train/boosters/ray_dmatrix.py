"""The records of a fold as a RayDMatrix, for folds that several training processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import ray

if TYPE_CHECKING:
    from core.arrays import Rows
    from train.boosters.data import BoosterData


def fold_matrix(
    base: type,
    reference: ray.ObjectRef[BoosterData],
    rows: Rows,
    swap: bool,
    all_rows: bool = False,
) -> Any:  # noqa: ANN401 - the backend's
    """Return a RayDMatrix (the class `base`) of some records.

    Each process reads its share of the rows from the object store, sparse ones as they are. The backends' own matrices
    would put dense copies of every fold there. With `all_rows` each process gets all rows.
    """

    class FoldMatrix(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
            self.loaded = True

        def get_data(self, rank: int, num_actors: int | None = None) -> dict[str, Any]:
            own_rows = rows if all_rows else rows[rank :: num_actors or 1]
            sample = ray.get(reference).sample(own_rows, swap)
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
    """Return features that have len(), which the backends call and SciPy's matrices refuse."""
    if isinstance(features, np.ndarray):
        return features
    import scipy.sparse

    class Sized(scipy.sparse.csr_matrix):  # type: ignore[misc]
        def __len__(self) -> int:
            return int(self.shape[0])

    return Sized(features)
