"""The blends: their weights, what each model adds, calibration, fallbacks and length debiasing."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from core.registry import SECTIONS
from infer.ensemble.fallbacks import PRIOR_VOTES
from infer.ensemble.outputs import ANALYSIS
from infer.ensemble.stage import preset_coverage
from report.section import ReportSection
from report.sections.blend.figures import gain_figure

if TYPE_CHECKING:
    from report.context import ReportContext
    from report.section import Metrics


@SECTIONS.register
class BlendSection(ReportSection):
    """The blends."""

    name, title, order = "blend", "Blend", 20
    summary = "Weights of each blend, what each model adds, calibration, fallbacks and length debiasing."
    figures = MappingProxyType({"gains": gain_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return the scores of the blends, and the weights and the analysis that the blend job wrote."""
        manifest = context.blend_manifest
        scores = context.scores["blends"]
        return {
            "blend": {
                "submission": context.submission,
                **scores[context.submission],
                "weights": manifest["metrics"]["weights"],
                "pools": manifest["metrics"]["pools"],
                "calibration": manifest["settings"]["calibration"],
                "preset": preset_coverage(context.settings),
                "prior_votes": PRIOR_VOTES,
                "length_taken_out": bool(manifest["settings"]["length_debias"]),
                "variants": scores,
                "analysis": (context.folder / "blend").read_json(ANALYSIS),
            }
        }
