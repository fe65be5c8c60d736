"""Differences of style that ratings are controlled for.

The arena's features are normalized differences (a - b) / (a + b) of length, headers, lists and bold spans (Li,
Angelopoulos and Chiang 2024, "Does style matter?"). Numbers of the tables in `features` are plain differences. Each is
divided by its root mean square, and not centered: with A and B exchanged a difference changes its sign, and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.errors import InputError
from core.progress import Progress
from featurize.arena_style import STYLE_FEATURES, arena_style
from featurize.external import read_external, require_external
from featurize.text import DistinctTexts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Doubles
    from core.run import Run
    from votes.records import Records


def read_style(run: Run, records: Records, names: Sequence[str]) -> Doubles:
    """Return the standardized differences (n, f) of the training records.

    Raises InputError for a name that is neither one of the arena's features nor a column of the tables in `features`.
    """
    own = {name: _own_column(run, records, name) for name in names if name not in STYLE_FEATURES}
    arena = _arena_differences(records) if any(name in STYLE_FEATURES for name in names) else np.empty((0, 0))
    columns = [own[name] if name in own else arena[:, STYLE_FEATURES.index(name)] for name in names]
    return standardize(np.stack(columns, axis=1))


def standardize(differences: Doubles) -> Doubles:
    """Return differences (n, f) divided by their root mean squares; a column of zeros stays."""
    scale = np.sqrt((differences**2).mean(axis=0))
    scaled: Doubles = differences / np.where(scale > 0, scale, 1.0)
    return scaled


def _arena_differences(records: Records) -> Doubles:
    shards = records.shards("train")
    progress = Progress("leaderboard", "shards described", total=len(shards))
    parts = []
    for shard in shards:
        distinct = DistinctTexts.of(records.folder.read_table(shard, ["prompt", "response_a", "response_b"]))
        described = np.array([arena_style(text) for text in distinct.texts])
        a, b = (described[distinct.index[side]] for side in ("response_a", "response_b"))
        parts.append((a - b) / np.maximum(a + b, 1.0))
        progress.advance(rows=len(a))
    return np.concatenate(parts)


def _own_column(run: Run, records: Records, name: str) -> Doubles:
    """Return A's number less B's, or the one number of both; missing numbers are 0."""
    table = None
    if run.settings.features:
        require_external(run)
        table = read_external(run, "train", records.rows("train"))
    names = [] if table is None else table.column_names
    if f"{name}_a" in names and f"{name}_b" in names:
        a, b = (_numbers(table, f"{name}_{side}") for side in "ab")
        return np.nan_to_num(a - b)
    if f"{name}_difference" in names:
        return np.nan_to_num(_numbers(table, f"{name}_difference"))
    known = [*STYLE_FEATURES, *sorted({column.rpartition("_")[0] for column in names})]
    raise InputError(f"no feature of style {name!r}", "leaderboard.style", f"known names: {', '.join(known)}.")


def _numbers(table: object, name: str) -> Doubles:
    values: Doubles = table[name].to_numpy(zero_copy_only=False).astype(np.float64)  # type: ignore[index]
    return values
