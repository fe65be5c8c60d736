"""The hand-made families together: from records to one dense column per feature and view."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurize import length, style, vocabulary
from featurize.catalogue import Column, View
from featurize.text import Text

FAMILIES = {"length": length, "vocabulary": vocabulary, "style": style}
VIEWS: tuple[View, ...] = ("prompt", "a", "b", "difference", "ratio")
# Part of the fingerprint of feature files: raise it when a family counts differently.
VERSION = 1

Floats = npt.NDArray[np.float32]


def columns(families: Sequence[str]) -> list[Column]:
    """The columns that `featurize` makes, in order: by family, then view, then feature."""
    return [
        Column(family, feature.name, view, feature.unit, feature.description)
        for family in families
        for view in VIEWS
        for feature in FAMILIES[family].FEATURES
    ]


def featurize(records: pa.Table, families: Sequence[str]) -> Floats:
    """Features (n, d) of records with the columns of preference.schema; d and the order are those of `columns`.

    A text that occurs several times in the table is analysed once.
    """
    blocks: list[Floats] = []
    described: dict[tuple[str | None, ...], list[list[float]]] = {}

    def rows_of(part: str) -> list[list[list[float]]]:
        rows = []
        for turns in records[part].to_pylist():
            key = tuple(turns)
            if key not in described:
                text = Text(key)
                described[key] = [FAMILIES[family].describe(text) for family in families]
            rows.append(described[key])
        return rows

    parts = [rows_of(part) for part in ("prompt", "response_a", "response_b")]
    for number in range(len(families)):
        prompt, a, b = (np.array([row[number] for row in rows], dtype=np.float32) for rows in parts)
        blocks += [prompt, a, b, a - b, normalised_difference(a, b)]
    return np.concatenate(blocks, axis=1)


def normalised_difference(a: Floats, b: Floats) -> Floats:
    """(a - b) / (a + b + 1): the ratio of two counts made antisymmetric, as in the arena's style control."""
    return (a - b) / (a + b + 1)
