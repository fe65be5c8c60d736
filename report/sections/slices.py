"""Where the blend errs: its loss on slices of the records, with support and intervals."""

import collections
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from report.scores import on_parts

Floats = npt.NDArray[np.float64]
Slices = dict[tuple[str, str], npt.NDArray[np.bool_]]  # by what they are told apart by, and their own name

TOP_MODELS = 8  # by records, either answer counting
# Percentile intervals of few are too short: by 9% for 20 normal values, by 37% for 5, and more for skewed ones.
FEWEST_PROMPTS = 20


def slices(
    columns: pa.Table, votes: pa.Table, losses: Floats, groups: npt.NDArray[np.int64], seed: int
) -> list[dict[str, Any]]:
    """The blend's mean loss on each slice and by how much it exceeds that on all records, with 95% intervals.

    `columns` are those of report_columns; `votes` has label, model_a and model_b; `losses` are (n,). Slices of fewer
    than FEWEST_PROMPTS prompts are left out.
    """
    masks = {
        name: rows
        for name, rows in {**_of_texts(columns), **_of_votes(votes)}.items()
        if len(np.unique(groups[rows])) >= FEWEST_PROMPTS
    }
    if not masks:
        return []
    found = on_parts(np.stack(list(masks.values()), axis=1), losses, groups, seed)
    return [{"by": by, "slice": name, **each} for (by, name), each in zip(masks, found, strict=True)]


def _of_texts(columns: pa.Table) -> Slices:
    turns, english, code = (columns[name].to_numpy() for name in ("turns", "english", "code"))
    written = columns["chars_a"].to_numpy() + columns["chars_b"].to_numpy()
    quartile = np.searchsorted(np.quantile(written, [0.25, 0.5, 0.75]), written, side="left")
    quarters = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
    found: Slices = {
        ("turns", "one"): turns <= 1,
        ("turns", "two"): turns == 2,
        ("turns", "three or more"): turns >= 3,
        **{("length", name): quartile == n for n, name in enumerate(quarters)},
        ("language", "English"): english,
        ("language", "other or none"): ~english,
        ("code", "some"): code,
        ("code", "none"): ~code,
    }
    return found


def _of_votes(votes: pa.Table) -> Slices:
    labels = votes["label"].to_numpy()
    found: Slices = {("vote", "a winner"): labels != 2, ("vote", "tie"): labels == 2}
    sides = [np.array(votes[name].to_pylist(), object) for name in ("model_a", "model_b")]
    counts = collections.Counter(name for side in sides for name in side if name)
    for name, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:TOP_MODELS]:
        found["model", name] = (sides[0] == name) | (sides[1] == name)
    return found
