"""Define the base class of families whose numbers are joined to the records, not computed from their texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.errors import InputError
from featurize.blocks import Block, Column, PlainBlock
from featurize.family import FeatureFamily

if TYPE_CHECKING:
    import numpy.typing as npt

    from core.arrays import Floats, Mask
    from core.run import Run
    from core.settings.features import FamilyEntry
    from core.shards import Item
    from core.storage import Folder
    from featurize.outputs import FeatureJob, Output
    from votes.records import Records


class JoinedFamily(FeatureFamily):
    """A family of numbers that a stage of the run has joined to the records.

    What is fitted on the training records says which columns there are. New pairs get the same columns.
    """

    is_plain = True
    makes_own_files = True
    fitted_file = "columns.json"

    @abstractmethod
    def manifest(self, run: Run) -> Mapping[str, Any]:
        """Return the manifest of the stage. `digests` in its metrics has a digest by split.

        Raises InputError if it is not finished with the run's settings.
        """

    @abstractmethod
    def fit_columns(self, run: Run, records: Records) -> dict[str, Any]:
        """Return what `columns` and `matrix` need, as JSON."""

    @abstractmethod
    def columns(self, fitted: Mapping[str, Any]) -> list[Column]:
        """Return the columns in order."""

    @abstractmethod
    def matrix(self, run: Run, split: str, rows: int, fitted: Mapping[str, Any]) -> Floats:
        """Return the columns (n, d) of a split with n records. A split that has nothing joined is missing everywhere.

        Raises InputError if the run lacks a column.
        """

    def joined_digests(self, run: Run) -> Mapping[str, str]:
        """Return the stage's digests by split. Raises InputError if it is not finished."""
        digests: Mapping[str, str] = self.manifest(run)["metrics"]["digests"]
        return digests

    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return the columns that were fitted."""
        return PlainBlock(output.folder, self.columns(output.read_fitted(folder)))

    def read_fitted(self, output: Output, folder: Folder) -> Any:  # noqa: ANN401
        """Return what `fit_columns` has returned."""
        return output.read_fitted(folder)

    def make_files(self, job: FeatureJob, entry: FamilyEntry) -> None:
        """Fit the columns and write the files of all shards that miss theirs, in one task: they are few and small."""
        import ray

        output = job.outputs[self.folder(entry)]
        items = job.to_make(output)
        refit = job.fits and (job.must_fit(output) or any(item["split"] == "train" for item in items))
        if refit:
            items = job.items
        if items:
            ray.get(ray.remote(num_cpus=1)(_write_files).remote(job, output, items, refit))


def _write_files(job: FeatureJob, output: Output, items: Sequence[Item], refit: bool) -> None:
    family, records = output.family, job.records
    assert isinstance(family, JoinedFamily)
    if refit:
        output.write_fitted(job.target, family.fit_columns(job.run, records))
    fitted = output.read_fitted(job.fitted)
    names = [column.name for column in family.columns(fitted)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two columns have the name {twice!r}", f"the family {family.name}", "rename one of them.")
    for split in dict.fromkeys(item["split"] for item in items):
        matrix = family.matrix(job.run, split, records.rows(split), fitted)
        missing = {item["shard"] for item in items if item["split"] == split}
        start = 0
        for shard in records.shards(split):
            rows, name = records.shard_rows(shard), shard.partition("/")[2]
            if name in missing:
                columns = {column: matrix[start : start + rows, n] for n, column in enumerate(names)}
                table = pa.table({"id": records.folder.read_table(shard, ["id"])["id"], **columns})
                job.target.write_table(output.file({"split": split, "shard": name}), table, output.by_split[split])
            start += rows


def require_columns(missing: Sequence[str], where: str) -> None:
    """Raise InputError if new pairs lack columns that models were trained on."""
    if missing:
        raise InputError(
            f"no column {', '.join(map(repr, missing))}, which the run's models were trained on",
            where=where,
            fix="add it to the table; cells may be empty.",
        )


def with_missing(values: npt.NDArray[np.floating], is_missing: Mask) -> Floats:
    """Return values (n, d), 0 where they are missing, and a column that says where they are: (n, d + 1)."""
    is_missing = is_missing[:, None]
    return np.concatenate([np.where(is_missing, 0, values), is_missing], axis=1, dtype=np.float32)
