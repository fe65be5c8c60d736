"""The figure of what each model adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from report.figures import Differences, difference_figure

if TYPE_CHECKING:
    from markupsafe import Markup

    from report.section import Metrics


def gain_figure(metrics: Metrics) -> Markup:
    """Return what each model adds to the blend: the loss without the model, less the loss with it."""
    models = list(metrics["blend"]["analysis"]["without"])
    gains = Differences(("blend", "analysis", "without"), models, models, "gain")
    title = "What each model adds to the blend, with 95% intervals"
    return difference_figure(metrics, "gains", title, gains, "gain, nats per record")
