"""Check whether the blend's probabilities match the frequencies of votes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from core.registry import SECTIONS
from metrics.calibration_curves import confusion_matrix, diagram_error, histogram, reliability_diagram
from report.section import ReportSection
from report.sections.calibration.figures import reliability_figure
from votes.schema import LABELS

if TYPE_CHECKING:
    from report.context import ReportContext
    from report.section import Metrics


@SECTIONS.register
class CalibrationSection(ReportSection):
    """Calibration of the blend."""

    name, title, order = "calibration", "Calibration", 30
    summary = "Reliability diagrams of the blend, and its confusion of votes."
    figures = MappingProxyType({"reliability": reliability_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return reliability diagram and histogram by class, and the counts of votes by predicted class."""
        blend, votes = context.blend, context.votes
        labels = LABELS[: votes.classes]
        counts = zip(labels, np.rint(confusion_matrix(blend, votes)).astype(int).tolist(), strict=True)
        diagrams = {
            label: reliability_diagram(blend[:, n], votes.labels == n, votes.weights) for n, label in enumerate(labels)
        }
        return {
            "calibration": {
                "reliability": diagrams,
                "error": {label: diagram_error(diagram) for label, diagram in diagrams.items()},
                "histogram": {label: histogram(blend[votes.first, n]) for n, label in enumerate(labels)},
                "confusion": {vote: dict(zip(labels, row, strict=True)) for vote, row in counts},
            }
        }
