"""Compute the blend's loss on slices of the records, with intervals."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from report.scores import score_parts
from report.section import ReportSection
from report.sections.slices.figures import slice_figure
from report.slices import MIN_PROMPTS, slices_of_records, slices_of_votes

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Doubles
    from report.context import ReportContext
    from report.section import Metrics
    from votes.arrays import Votes


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
    masks = slices_of_records(columns, rows, votes) | slices_of_votes(rows, votes)
    masks = {name: mask for name, mask in masks.items() if len(np.unique(votes.groups[mask])) >= MIN_PROMPTS}
    if not masks:
        return []
    scores = score_parts(np.stack(list(masks.values()), axis=1), losses, votes, seed)
    return [{"by": by, "slice": name, **score} for (by, name), score in zip(masks, scores, strict=True)]
