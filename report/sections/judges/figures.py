"""Figures of judges: agreement against price, and against one more person."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import escape_text, join_sentences
from report.numbers import marked_interval, marked_number
from report.svg import FigureRow, Mark, axis_around, row_figure

if TYPE_CHECKING:
    from report.section import Metrics

_KINDS = {"judge": "actual", "model": "model", "blend": "predicted"}


def agreement_figure(metrics: Metrics) -> Markup:
    """Return the agreement of each rater with people, the cheapest first, and those of no known price last."""
    judges = metrics["judges"]

    def place(name: str) -> tuple[float, float]:
        price = judges[name]["cost_per_1000"]
        return (math.inf if price is None else price, -judges[name]["agreement"])

    names = sorted(judges, key=place)
    rows, texts, ends = [], [], []
    for name in names:
        keys, values = ("judges", name), judges[name]
        ends += values["agreement_ci95"]
        number = marked_number(metrics, ".1%", *keys, "agreement", tag="tspan")
        if values["cost_per_1000"] is not None:
            number += Markup(", ${}").format(marked_number(metrics, ",.2f", *keys, "cost_per_1000", tag="tspan"))
        mark = Mark(_KINDS[values["kind"]], values["agreement_ci95"], values["agreement"])
        rows.append(FigureRow(name, [mark], number, strong=values["kind"] == "blend"))
        texts.append(
            Markup("{}: {}, interval {}").format(
                escape_text(name),
                marked_number(metrics, ".1%", *keys, "agreement"),
                marked_interval(metrics, ".1%", *keys, "agreement_ci95"),
            )
        )
    title = "Agreement with people's votes, by price"
    axis = axis_around(ends, "share of votes, 95% interval", percent=True)
    return row_figure("judges-agreement", title, join_sentences(texts), rows, axis)
