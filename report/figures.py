"""Draw parts that figures of several sections share: texts, and rows of differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from report.numbers import Key, marked_interval, marked_number, value_at
from report.svg import FigureRow, Mark, axis_around, row_figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from report.section import Metrics


def escape_text(text: str) -> Markup:
    """Return a name of the run for a figure's description. It may show digits that are no results."""
    return Markup("<span data-text>{}</span>").format(text)


def join_sentences(parts: Iterable[Markup]) -> Markup:
    """Return the parts as sentences, for a figure's description."""
    return Markup(". ").join(parts) + Markup(".")


@dataclass(frozen=True)
class Differences:
    """Entries of metrics.json, each with a difference and its 95% interval."""

    path: tuple[Key, ...]  # leads to the entries
    entries: Sequence[Key]  # keys or indexes of the entries
    labels: Sequence[str]  # of the entries
    value: str  # key of the difference in its entry; its interval is at the same key with `_ci95`


def difference_figure(metrics: Metrics, key: str, title: str, differences: Differences, axis_name: str) -> Markup:
    """Return a figure with a row for each difference, around the line of no difference."""
    value, interval = differences.value, f"{differences.value}_ci95"
    rows, texts, ends = [], [], [0.0]
    for entry, label in zip(differences.entries, differences.labels, strict=True):
        keys = (*differences.path, entry)
        numbers = value_at(metrics, keys)
        ends += numbers[interval]
        shown = marked_number(metrics, "+.4f", *keys, value, tag="tspan")
        rows.append(FigureRow(label, [Mark("model", numbers[interval], numbers[value])], shown))
        texts.append(
            Markup("{}: {}, interval {}").format(
                escape_text(label),
                marked_number(metrics, "+.4f", *keys, value),
                marked_interval(metrics, "+.4f", *keys, interval),
            )
        )
    return row_figure(key, title, join_sentences(texts), rows, axis_around(ends, axis_name), reference=0)
