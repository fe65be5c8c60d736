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

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Doubles, Groups, Mask
    from report.context import ReportContext
    from report.section import Metrics

    SliceMasks = dict[tuple[str, str], Mask]  # by what tells slices apart, and the name of the slice

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
        columns, losses = context.columns["train"], context.blend_losses
        return {"slices": score_slices(columns, context.rows, losses, context.votes.groups, context.seed)}


def score_slices(columns: pa.Table, rows: pa.Table, losses: Doubles, groups: Groups, seed: int) -> list[dict[str, Any]]:
    """Return the mean loss on each slice and its difference from the mean on all records, with 95% intervals.

    `columns` are those of report.columns; `rows` has label, model_a and model_b; `losses` are (n,). Slices of fewer
    than MIN_PROMPTS prompts are left out.
    """
    masks = {
        name: mask
        for name, mask in {**_text_slices(columns), **_vote_slices(rows)}.items()
        if len(np.unique(groups[mask])) >= MIN_PROMPTS
    }
    if not masks:
        return []
    scores = score_parts(np.stack(list(masks.values()), axis=1), losses, groups, seed)
    return [{"by": by, "slice": name, **score} for (by, name), score in zip(masks, scores, strict=True)]


def _text_slices(columns: pa.Table) -> SliceMasks:
    turns, english, code = (columns[name].to_numpy() for name in ("turns", "english", "code"))
    chars = columns["chars_a"].to_numpy() + columns["chars_b"].to_numpy()
    quartile = np.searchsorted(np.quantile(chars, [0.25, 0.5, 0.75]), chars, side="left")
    quarters = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
    return {
        ("turns", "one"): turns <= 1,
        ("turns", "two"): turns == 2,
        ("turns", "three or more"): turns >= 3,
        **{("length", name): quartile == n for n, name in enumerate(quarters)},
        ("language", "English"): english,
        ("language", "other or none"): ~english,
        ("code", "some"): code,
        ("code", "none"): ~code,
    }


def _vote_slices(rows: pa.Table) -> SliceMasks:
    labels = rows["label"].to_numpy()
    masks: SliceMasks = {("vote", "a winner"): labels != 2, ("vote", "tie"): labels == 2}
    sides = [np.array(rows[name].to_pylist(), object) for name in ("model_a", "model_b")]
    counts = collections.Counter(name for side in sides for name in side if name)
    for name, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:TOP_MODELS]:
        masks["model", name] = (sides[0] == name) | (sides[1] == name)
    return masks
