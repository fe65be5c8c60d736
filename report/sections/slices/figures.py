"""The figure of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from report.figures import Differences, difference_figure

if TYPE_CHECKING:
    from markupsafe import Markup

    from report.section import Metrics


def slice_figure(metrics: Metrics) -> Markup:
    """Return the loss on each slice, less the loss on all records."""
    labels = [f"{entry['by']}: {entry['slice']}" for entry in metrics["slices"]]
    differences = Differences(("slices",), range(len(labels)), labels, "difference")
    title = "The blend's log loss on slices of the records, against that on all, with 95% intervals"
    return difference_figure(
        metrics, "slices", title, differences, "log loss above that on all records, nats per record"
    )
