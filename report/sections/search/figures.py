"""The figure of a search's trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.numbers import marked_number
from report.svg import Axis, Plot, axes, axis_around, figure, points

if TYPE_CHECKING:
    from report.section import Metrics


def search_figure(metrics: Metrics, booster: str) -> Markup:
    """Return the held-out loss of each trial of a search by the time of its end."""
    trials = metrics["search"][booster]["trials"]
    x = Axis(0, max(*(trial["at"] for trial in trials), 1e-3), "seconds since the search began")
    y = axis_around([trial["log_loss"] for trial in trials], "held-out log loss, nats per record")
    plot = Plot(x, y, top=26, left=60)
    complete, stopped = (
        [(trial["at"], trial["log_loss"]) for trial in trials if trial["stopped"] == early] for early in (False, True)
    )
    best = min(range(len(trials)), key=lambda n: float(trials[n]["log_loss"]))
    text = Markup("The best of {} trials has a loss of {}.").format(
        marked_number(metrics, ",", "search", booster, "count"),
        marked_number(metrics, ".4f", "search", booster, "trials", best, "log_loss"),
    )
    marks = (axes(plot), points(plot, "model", complete), points(plot, "predicted", stopped))
    title = f"Held-out log loss of each trial of {booster} by the time it ended"
    return figure(f"search-{booster}", title, text, plot.bottom + 42, *marks)
