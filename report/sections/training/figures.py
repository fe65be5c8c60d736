"""The figure of training curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import escape_text, join_sentences
from report.numbers import marked_number
from report.svg import Axis, Plot, axes, axis_around, figure, path, points

if TYPE_CHECKING:
    from report.section import Metrics


def curve_figure(metrics: Metrics, model: str) -> Markup:
    """Return the training loss and held-out log loss of a fine-tuned model, two lines for each fold."""
    folds = metrics["curves"][model]
    losses = [loss for curve in folds.values() for _, loss in (*curve["loss"], *curve["held_out"])]
    x = Axis(0, max(1, *(curve["steps"] - 1 for curve in folds.values())), "step of the optimizer")
    plot = Plot(x, axis_around(losses, "loss, nats per record"), top=26)
    marks = [axes(plot)]
    for curve in folds.values():
        marks += [path(plot, "faint", curve["loss"]), path(plot, "actual", curve["held_out"])]
        marks.append(points(plot, "actual", curve["held_out"]))
    text = join_sentences(
        Markup("fold {}: held-out log loss {} at the end").format(
            escape_text(fold),
            marked_number(metrics, ".4f", "curves", model, fold, "held_out", len(curve["held_out"]) - 1, 1),
        )
        for fold, curve in folds.items()
    )
    title = f"Training loss and held-out log loss of {model} by step"
    return figure(f"curve-{model}", title, text, plot.bottom + 42, *marks)
