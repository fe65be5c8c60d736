"""External: numbers that were computed elsewhere, such as scores of reward models. `features` names their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.registry import FAMILIES
from core.settings.features import EXTERNAL
from featurize.blocks import Column, Feature, View, view_columns
from featurize.external import read_external, require_external
from featurize.family import bounded_difference
from featurize.joined import JoinedFamily, require_columns, with_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Floats
    from core.run import Run
    from votes.records import Records

_SIDES: tuple[View, ...] = ("a", "b", "difference", "ratio")


@FAMILIES.register
class ExternalFamily(JoinedFamily):
    """The columns of the tables in `features`, with the views that features of texts have."""

    name = EXTERNAL
    summary = "numeric columns of the tables in `features`, joined by id, with the views of text features"
    version = 1

    def manifest(self, run: Run) -> Mapping[str, Any]:
        """Return the manifest of the numbers. Raises InputError if they are not joined with these settings."""
        return require_external(run)

    def fit_columns(self, run: Run, records: Records) -> dict[str, Any]:
        """Return the views of each feature."""
        return {"views": {name: sorted(by_view) for name, by_view in self.manifest(run)["metrics"]["columns"].items()}}

    def columns(self, fitted: Mapping[str, Any]) -> list[Column]:
        """Return the views of each feature, and whether it is missing: a, b, difference and ratio, or one column."""
        columns = []
        for name, views in fitted["views"].items():
            feature = Feature(name, "as given", f"{name}, computed elsewhere")
            columns += view_columns(self.name, [feature], _SIDES if "a" in views else views)
            missing = Feature(f"{name}_missing", "0 or 1", f"1 if the record has no {name}")
            columns += view_columns(self.name, [missing], ("pair",))
        return columns

    def matrix(self, run: Run, split: str, rows: int, fitted: Mapping[str, Any]) -> Floats:
        """Return the columns (n, d). Raises InputError if the tables of new pairs lack one."""
        table = read_external(run, split, rows)
        parts = []
        for name, views in fitted["views"].items():
            names = [f"{name}_{view}" for view in views]
            if table is None:
                values = np.full((rows, len(names)), np.nan)
            else:
                require_columns([column for column in names if column not in table.column_names], "features")
                values = np.stack([_numbers(table[name]) for name in names], axis=1)
            is_missing = np.isnan(values).any(axis=1)
            if "a" in views:
                a, b = values[:, [views.index("a")]], values[:, [views.index("b")]]
                values = np.concatenate([a, b, a - b, bounded_difference(a, b)], axis=1)
            parts.append(with_missing(values, is_missing))
        return np.concatenate(parts, axis=1)


def _numbers(column: pa.ChunkedArray) -> Floats:
    numbers: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers
