"""The figure of log losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from report.figures import escape_text, join_sentences
from report.numbers import Key, marked_interval, marked_number, value_at
from report.svg import FigureRow, Mark, axis_around, row_figure

if TYPE_CHECKING:
    from report.section import Metrics


def loss_figure(metrics: Metrics) -> Markup:
    """Return the log loss of every baseline, model and blend with its interval."""
    entries: list[tuple[str, tuple[Key, ...], str]] = [
        *(("baseline", ("baselines", name), name) for name in metrics["baselines"]),
        *(
            ("model", ("models", name), f"{name} (not all records)" if "records" in scores else name)
            for name, scores in metrics["models"].items()
        ),
        *(("blend", ("blend", "variants", name), f"blend: {name}") for name in metrics["blend"]["variants"]),
    ]
    submitted = f"blend: {metrics['blend']['submission']}"
    values = [value_at(metrics, keys) for _, keys, _ in entries]
    axis = axis_around([end for scores in values for end in scores["ci95"]], "out-of-fold log loss, nats per record")
    rows = [
        FigureRow(
            label,
            [Mark(kind, scores["ci95"], scores["oof_log_loss"])],
            marked_number(metrics, ".4f", *keys, "oof_log_loss", tag="tspan"),
            strong=label == submitted,
        )
        for (kind, keys, label), scores in zip(entries, values, strict=True)
    ]
    text = join_sentences(
        Markup("{}: {}, interval {}").format(
            escape_text(label),
            marked_number(metrics, ".4f", *keys, "oof_log_loss"),
            marked_interval(metrics, ".4f", *keys, "ci95"),
        )
        for _, keys, label in entries
    )
    return row_figure("losses", "Out-of-fold log loss of each model, with 95% intervals", text, rows, axis)
