"""Divide the records into slices: by turns, length, code, language, vote and model."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final

import numpy as np

from votes.schema import LABELS

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Mask
    from votes.arrays import Votes

    SliceMasks = dict[tuple[str, str], Mask]  # by what tells slices apart, and the name of the slice

TOP_LANGUAGES: Final = 8  # by votes
TOP_MODELS: Final = 8  # by records in which either answer is theirs
# Percentile intervals of few prompts are too short: by 9% for 20 normal values, and by 37% for 5.
MIN_PROMPTS: Final = 20


def slices_of_records(columns: pa.Table, rows: pa.Table, votes: Votes) -> SliceMasks:
    """Return masks (m,) by what is known of a record before anybody votes, of slices with at least MIN_PROMPTS prompts.

    `columns` are those of report.columns; `rows` has the language.
    """
    masks = {**_text_slices(columns), **_language_slices(columns, rows)}
    return {name: mask for name, mask in masks.items() if len(np.unique(votes.groups[mask])) >= MIN_PROMPTS}


def _text_slices(columns: pa.Table) -> SliceMasks:
    turns, code = (columns[name].to_numpy() for name in ("turns", "code"))
    chars = columns["chars_a"].to_numpy() + columns["chars_b"].to_numpy()
    quartile = np.searchsorted(np.quantile(chars, [0.25, 0.5, 0.75]), chars, side="left")
    quarters = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
    return {
        ("turns", "one"): turns <= 1,
        ("turns", "two"): turns == 2,
        ("turns", "three or more"): turns >= 3,
        **{("length", name): quartile == n for n, name in enumerate(quarters)},
        ("code", "some"): code,
        ("code", "none"): ~code,
    }


def _language_slices(columns: pa.Table, rows: pa.Table) -> SliceMasks:
    """Return the most frequent languages that the file names; else whether the texts look English."""
    names = np.array(rows["language"].to_pylist(), object)
    counts = collections.Counter(name for name in names if name)
    if not counts:
        english = columns["english"].to_numpy()
        return {("language", "English"): english, ("language", "other or none"): ~english}
    frequent = sorted(counts, key=lambda name: (-counts[name], name))[:TOP_LANGUAGES]
    return {("language", name): names == name for name in frequent}


def slices_of_votes(rows: pa.Table, votes: Votes) -> SliceMasks:
    """Return masks (m,) by the vote, and by the models that answer most often, of all slices with a record."""
    masks: SliceMasks = {("vote", "a winner"): votes.labels < 2}
    masks |= {("vote", LABELS[n]): votes.labels == n for n in range(2, votes.classes)}
    sides = [np.array(rows[name].to_pylist(), object) for name in ("model_a", "model_b")]
    counts = collections.Counter(name for side in sides for name in side if name)
    for name, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP_MODELS]:
        masks["model", name] = (sides[0] == name) | (sides[1] == name)
    return masks
