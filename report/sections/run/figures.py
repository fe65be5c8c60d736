"""The timeline of stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import escape_text, join_sentences
from report.numbers import Key, marked_number
from report.svg import Axis, FigureRow, Mark, row_figure

if TYPE_CHECKING:
    from report.section import Metrics


def timeline_figure(metrics: Metrics) -> Markup:
    """Return the stages of the run, one after another."""
    stages = metrics["run"]["stages"]
    rows, texts = [], []
    for n, stage in enumerate(stages):
        keys: tuple[Key, ...] = ("run", "stages", n, "seconds")
        mark = Mark("model", (stage["before"], stage["before"] + stage["seconds"]))
        shown = Markup("{} s").format(marked_number(metrics, ",.1f", *keys, tag="tspan"))
        rows.append(FigureRow(stage["stage"], [mark], shown))
        seconds = marked_number(metrics, ",.1f", *keys)
        texts.append(Markup("{}: {} seconds").format(escape_text(stage["stage"]), seconds))
    end = max((stage["before"] + stage["seconds"] for stage in stages), default=1.0)
    axis = Axis(0, max(end, 1e-3), "seconds of work, without idle time between stages")
    return row_figure("timeline", "Seconds that each stage of the run took", join_sentences(texts), rows, axis)
