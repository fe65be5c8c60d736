"""Compute the blend's loss on slices of the records, with intervals."""

from __future__ import annotations

import collections
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from report.scores import score_parts
from report.section import ReportSection
from report.sections.slices.figures import slice_figure
from votes.schema import LABELS

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Doubles, Mask
    from report.context import ReportContext
    from report.section import Metrics
    from votes.arrays import Votes

    SliceMasks = dict[tuple[str, str], Mask]  # by what tells slices apart, and the name of the slice

TOP_LANGUAGES = 8  # by votes
TOP_MODELS = 8  # by records in which either answer is theirs
# Percentile intervals of few prompts are too short: by 9% for 20 normal values, and by 37% for 5.
MIN_PROMPTS = 20


@SECTIONS.register
class SlicesSection(ReportSection):
    """The blend on slices of the records."""

    name, title, order = "slices", "Slices", 50
    summary = "The blend's loss by turns, length, language, code, vote and answering model."
    figures = MappingProxyType({"slices": slice_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return the loss on each slice."""
        losses = context.blend_losses
        return {"slices": score_slices(context.train_columns, context.rows, losses, context.votes, context.seed)}


def score_slices(columns: pa.Table, rows: pa.Table, losses: Doubles, votes: Votes, seed: int) -> list[dict[str, Any]]:
    """Return the mean loss on each slice and its difference from the mean on all votes, with 95% intervals.

    `columns` are those of report.columns; `rows` has model_a, model_b and language; `losses` are (m,). Slices of fewer
    than MIN_PROMPTS prompts are left out.
    """
    masks = {
        name: mask
        for name, mask in {
            **_text_slices(columns),
            **_language_slices(columns, rows),
            **_vote_slices(rows, votes),
        }.items()
        if len(np.unique(votes.groups[mask])) >= MIN_PROMPTS
    }
    if not masks:
        return []
    scores = score_parts(np.stack(list(masks.values()), axis=1), losses, votes, seed)
    return [{"by": by, "slice": name, **score} for (by, name), score in zip(masks, scores, strict=True)]


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


def _vote_slices(rows: pa.Table, votes: Votes) -> SliceMasks:
    masks: SliceMasks = {("vote", "a winner"): votes.labels < 2}
    masks |= {("vote", LABELS[n]): votes.labels == n for n in range(2, votes.classes)}
    sides = [np.array(rows[name].to_pylist(), object) for name in ("model_a", "model_b")]
    counts = collections.Counter(name for side in sides for name in side if name)
    for name, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP_MODELS]:
        masks["model", name] = (sides[0] == name) | (sides[1] == name)
    return masks
