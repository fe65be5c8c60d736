"""The figure of the human ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import join_sentences
from report.numbers import marked_interval, marked_number
from report.svg import FigureRow, Mark, axis_around, row_figure

if TYPE_CHECKING:
    from report.section import Metrics

_ROWS = (
    ("class_prior", "class prior", "baseline"),
    ("blend", "the blend", "predicted"),
    ("one_person", "one other person's vote", "actual"),
    ("all_others", "all other people's votes", "actual"),
)


def ceiling_figure(metrics: Metrics) -> Markup:
    """Return the log loss per vote of the blend and of predictions from other people's votes."""
    ceiling = metrics["voters"]["ceiling"]
    rows, texts, ends = [], [], []
    for key, label, kind in _ROWS:
        keys = ("voters", "ceiling", key)
        interval = ceiling[key]["ci95"]
        ends += interval
        rows.append(
            FigureRow(
                label,
                [Mark(kind, interval, ceiling[key]["value"])],
                marked_number(metrics, ".4f", *keys, "value", tag="tspan"),
                strong=key == "blend",
            )
        )
        texts.append(
            Markup("{}: {}, interval {}").format(
                label, marked_number(metrics, ".4f", *keys, "value"), marked_interval(metrics, ".4f", *keys, "ci95")
            )
        )
    title = "Log loss of predicting one person's vote, with 95% intervals"
    return row_figure("ceiling", title, join_sentences(texts), rows, axis_around(ends, "log loss, nats per vote"))
