"""Add a report section: the share of votes that name a winner.

    tiebreak report --config configs/demo.yaml --plugin examples/custom_section.py

The section appears in the page and in its navigation. Its numbers are in report/metrics.json.
"""

from typing import TYPE_CHECKING, Any

from core.registry import SECTIONS
from report.section import ReportSection

if TYPE_CHECKING:
    from report.context import ReportContext


@SECTIONS.register
class DecidedVotes(ReportSection):
    """The share of votes that name a winner."""

    name = "decided"
    title = "Decided votes"
    order = 55
    summary = "The share of votes that name a winner."
    template = (
        "<h2>Decided votes</h2>"
        "<p>{{ number('.1%', 'decided', 'share') }} of {{ number(',', 'decided', 'votes') }} votes name a winner.</p>"
    )

    def compute(self, context: "ReportContext") -> dict[str, Any]:
        """Return the numbers of this section, under a key that no other section uses."""
        labels = context.votes.labels
        return {"decided": {"votes": len(labels), "share": float((labels < 2).mean())}}
