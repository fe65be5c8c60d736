"""Read finished features and records as the data that boosters train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurize.blocks import Layout, NgramBlock
from train.boosters.stages import source_weights
from votes.records import SOURCE_PREFIX, Records

if TYPE_CHECKING:
    from core.arrays import Mask
    from core.run import Run
    from featurize.store import FeatureStore
    from train.boosters.data import BoosterData
    from train.boosters.matrix import Matrix

# Share of entries below which an n-gram block stays sparse: an entry takes 8 bytes sparse, 4 dense.
SPARSE_BELOW = 0.5


@dataclass(frozen=True)
class MatrixLayout:
    """The blocks that boosters read as arrays, and the sparse blocks after them."""

    dense: Layout
    sparse: Layout

    @property
    def layout(self) -> Layout:
        """All columns, in the order of the matrices."""
        return Layout([*self.dense.blocks, *self.sparse.blocks])

    def read(self, features: FeatureStore, split: str, shard: str) -> Matrix:
        """Return the features of one shard; see FeatureStore.tables."""
        import scipy.sparse

        from train.boosters.matrix import Matrix

        tables = features.tables(split, shard, self.layout.blocks)
        rows = next(iter(tables.values())).num_rows
        array: Any = self.dense.dense(tables) if self.dense.blocks else np.empty((rows, 0), np.float32)
        if not self.sparse.blocks:
            return Matrix(array)
        parts = [block.sparse(tables[block.folder]) for block in self.sparse.blocks if isinstance(block, NgramBlock)]
        return Matrix(array, scipy.sparse.hstack(parts, format="csr"))


def load_data(
    features: FeatureStore,
    records: Records,
    families: Sequence[str] | None = None,
    weights: Mapping[str, float] = {},
    used_sources: Mask | None = None,
    sparse_below: float = SPARSE_BELOW,
) -> BoosterData:
    """Return the features of some families (all if None), read from the files of a run.

    `weights` are those of other sources by name, in order; `used_sources` says which folds train on which. Call it in
    the process that keeps the data, not in the driver.
    """
    from train.boosters.data import BoosterData
    from train.boosters.matrix import stack_rows

    matrix_layout = choose_matrix_layout(features, records, families, sparse_below)

    def matrix(split: str) -> Matrix:
        shards = [name.partition("/")[2] for name in records.shards(split)]
        return stack_rows([matrix_layout.read(features, split, shard) for shard in shards])

    splits = ["train", *(f"{SOURCE_PREFIX}{name}" for name in weights)]
    votes = [records.training_votes(split) for split in splits]
    rows = [len(part) for part in votes]
    starts = np.cumsum([0, *(records.rows(split) for split in splits)])
    record_of = np.concatenate([part.records + start for part, start in zip(votes, starts, strict=False)])
    everything = stack_rows([matrix(split) for split in splits])
    repeats = len(record_of) > len(everything)  # a record with several outcomes has several rows
    counts = np.concatenate([part.weights for part in votes]).astype(np.float32)
    of_source = np.repeat(np.array([1.0, *weights.values()], np.float32), rows)
    permutation, signs = matrix_layout.layout.exchange()
    columns = matrix_layout.layout.columns()
    return BoosterData(
        features=everything.rows(record_of) if repeats else everything,
        labels=np.concatenate([part.labels for part in votes]),
        folds=np.concatenate([part.folds for part in votes]),
        test_features=matrix("test") if "test" in records.splits else None,
        permutation=permutation,
        signs=signs,
        names=[column.name for column in columns],
        families=[column.family for column in columns],
        sources=np.repeat(np.arange(len(splits), dtype=np.int16), rows),
        weights=of_source * counts if weights or (counts != 1).any() else None,
        used_sources=used_sources,
        records=record_of if repeats else None,
        classes=records.classes,
    )


def choose_matrix_layout(
    features: FeatureStore,
    records: Records,
    families: Sequence[str] | None = None,
    sparse_below: float = SPARSE_BELOW,
) -> MatrixLayout:
    """Return the columns of some families (all if None), sparse where few training records have an entry."""
    layout = features.layout if families is None else features.layout.of(families)
    blocks = [block for block in layout.blocks if isinstance(block, NgramBlock)]
    entries = dict.fromkeys((block.name for block in blocks), 0)
    for name in records.shards("train"):
        tables = features.tables("train", name.partition("/")[2], blocks)
        for block in blocks:
            entries[block.name] += block.sparse(tables[block.folder]).nnz
    rows = records.rows("train")
    sparse = [block for block in blocks if entries[block.name] < sparse_below * rows * len(block.columns())]
    return MatrixLayout(Layout([block for block in layout.blocks if block not in sparse]), Layout(sparse))


def put_data(
    run: Run,
    features: FeatureStore,
    records: Records,
    families: Sequence[str] | None,
    used_sources: Mask | None = None,
) -> Any:  # noqa: ANN401 - a Ray object reference
    """Return a reference to boosters' data, which a worker puts into the object store; the driver never holds it.

    A source that no fold uses is left out.
    """
    import ray

    weights = source_weights(run)
    if used_sources is not None:
        used = np.any(used_sources, axis=0).tolist()
        weights = {name: weight for (name, weight), is_used in zip(weights.items(), used, strict=True) if is_used}
        used_sources = used_sources[:, np.flatnonzero(used)] if weights else None
    return ray.remote(num_cpus=1)(load_data).remote(features, records, families, weights, used_sources)
