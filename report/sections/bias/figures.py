"""The figures of length and style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import join_sentences
from report.numbers import Key, marked_interval, marked_number
from report.svg import FigureRow, Mark, Plot, axes, axis_around, error_bars, figure, path, points, row_figure

if TYPE_CHECKING:
    from report.section import Metrics


def length_figure(metrics: Metrics) -> Markup:
    """Return how often A wins by how much longer it is, as voted and as predicted."""
    bins = metrics["bias"]["length"]
    shares = [value for part in bins for value in (*part["ci95"], part["predicted"])]
    x = axis_around([part["difference"] for part in bins], "length of A against B, (a − b) / (a + b) in characters")
    plot = Plot(x, axis_around(shares, "share won by A, a tie as half a win", percent=True, whole_steps=True), top=26)
    text = join_sentences(
        Markup("difference {}: actual {}, predicted {}").format(
            marked_number(metrics, "+.2f", "bias", "length", n, "difference"),
            marked_number(metrics, ".1%", "bias", "length", n, "actual"),
            marked_number(metrics, ".1%", "bias", "length", n, "predicted"),
        )
        for n in range(len(bins))
    )
    return figure(
        "length",
        "Share won by A by how much longer it is: votes with 95% intervals, and predictions",
        text,
        plot.bottom + 42,
        axes(plot),
        path(plot, "predicted", [(part["difference"], part["predicted"]) for part in bins]),
        error_bars(plot, "actual", [(part["difference"], *part["ci95"]) for part in bins]),
        points(plot, "actual", [(part["difference"], part["actual"]) for part in bins]),
        points(plot, "predicted", [(part["difference"], part["predicted"]) for part in bins]),
    )


def style_figure(metrics: Metrics) -> Markup:
    """Return the coefficients of the Bradley-Terry fits to the votes and to the blend."""
    coefficients = metrics["bias"]["style"]
    ends = [end for entry in coefficients for source in ("votes", "blend") for end in entry[f"{source}_ci95"]]
    axis = axis_around([0, *ends], "log-odds of a win, for one standard deviation")
    rows, texts = [], []
    for n, entry in enumerate(coefficients):
        keys: tuple[Key, ...] = ("bias", "style", n)
        marks = [
            Mark("actual", entry["votes_ci95"], entry["votes"]),
            Mark("predicted", entry["blend_ci95"], entry["blend"]),
        ]
        shown = [marked_number(metrics, "+z.2f", *keys, source, tag="tspan") for source in ("votes", "blend")]
        rows.append(FigureRow(entry["feature"], marks, Markup("{} · {}").format(*shown)))
        texts.append(
            Markup("{}: votes {}, interval {}; blend {}").format(
                entry["feature"],
                marked_number(metrics, "+.2f", *keys, "votes"),
                marked_interval(metrics, "+.2f", *keys, "votes_ci95"),
                marked_number(metrics, "+.2f", *keys, "blend"),
            )
        )
    title = "Style coefficients of Bradley-Terry fits to the votes and to the blend, with 95% intervals"
    return row_figure("style", title, join_sentences(texts), rows, axis, reference=0)
