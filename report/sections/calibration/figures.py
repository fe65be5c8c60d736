"""The reliability diagram of one class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import join_sentences
from report.numbers import marked_number
from report.svg import Axis, Plot, axes, axis_around, bars, error_bars, figure, path, points

if TYPE_CHECKING:
    from report.section import Metrics

HISTOGRAM_GAP = 40  # units between a reliability diagram and the histogram below it


def reliability_figure(metrics: Metrics, label: str) -> Markup:
    """Return the reliability diagram of one class over the histogram of its probabilities."""
    calibration = metrics["calibration"]
    bins, counts = calibration["reliability"][label], calibration["histogram"][label]
    highest = max(
        end
        for diagram in calibration["reliability"].values()
        for part in diagram
        for end in (*part["ci95"], part["predicted"])
    )
    edges = [n / len(counts) for n in range(len(counts) + 1)]
    filled = max(n + 1 for heights in calibration["histogram"].values() for n, count in enumerate(heights) if count)
    x = axis_around([0, max(highest, edges[filled])], f"predicted P({label})", percent=True, whole_steps=True)
    y = Axis(x.low, x.high, f"share of votes for {label}" if label != "tie" else "share of ties", percent=True)
    plot = Plot(x, y, top=26, bottom=250)
    below = Plot(x, axis_around([0, max(counts)], "records", whole_steps=True), top=250 + HISTOGRAM_GAP, bottom=350)
    keys = ("calibration", "reliability", label)
    text = join_sentences(
        Markup("predicted {}, observed {}, {} records").format(
            marked_number(metrics, ".1%", *keys, n, "predicted"),
            marked_number(metrics, ".1%", *keys, n, "observed"),
            marked_number(metrics, ",", *keys, n, "count"),
        )
        for n in range(len(bins))
    )
    return figure(
        f"reliability-{label}",
        f"Reliability diagram of P({label}) and histogram of its values",
        text,
        392,
        axes(plot, x_ticks=False),
        path(plot, "ideal", [(x.low, x.low), (x.high, x.high)]),
        error_bars(plot, "model", [(part["predicted"], *part["ci95"]) for part in bins]),
        points(plot, "model", [(part["predicted"], part["observed"]) for part in bins]),
        axes(below, y_ticks=2),
        bars(below, "model", edges[: filled + 1], counts[:filled]),
    )
