"""Draw figures as inline SVG: small functions that turn numbers into marks.

A figure is 400 units wide and is shown at about 400 pixels. So its text has the size of the page's text on any screen.
Colors come from the page's style sheet by class. Each series has a shape of its own, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH = 400
_EDGE = 12  # free space at the right of plots, for half the text of a tick
_LABEL = 44  # characters of a row's label
_ISOLATE, _END = "\u2068", "\u2069"  # keep names that run right to left from moving their neighbors


@dataclass(frozen=True)
class Axis:
    """The range and name of an axis, with its unit in the name. With `percent`, ticks are percentages."""

    low: float
    high: float
    name: str
    percent: bool = False

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Return round numbers on the axis with their texts, about `count` of them."""
        step = _step(self.high - self.low, count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step * (100 if self.percent else 1)) + 1e-9))
        ticks = []
        for n in range(first, last + 1):
            value = n * step * (100 if self.percent else 1)
            text = f"{value + 0.0:,.{decimals}f}".replace("-", "\u2212")
            ticks.append((n * step, text + "%" * self.percent))
        return ticks


def _step(span: float, count: int) -> float:
    """Return a round step (1, 2 or 5 times a power of ten) that divides `span` into at most `count` parts."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= count + 1e-9)


def axis_around(values: Sequence[float], name: str, percent: bool = False, whole_steps: bool = False) -> Axis:
    """Return an axis around values, with a small margin, or with `whole_steps` out to the next round numbers."""
    low, high = min(values), max(values)
    span = max(high - low, 0.01 * max(abs(low), abs(high)), 1e-6)
    if high - low < span:  # all values are about the same
        low, high = (low + high - span) / 2, (low + high + span) / 2
    if whole_steps:
        step = _step(span, 5)
        return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, name, percent)
    return Axis(low - 0.04 * span, high + 0.04 * span, name, percent)


@dataclass(frozen=True)
class Plot:
    """A rectangle of a figure with two axes."""

    x: Axis
    y: Axis
    top: float = 30
    bottom: float = 250
    left: float = 52

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of a point, in units of the figure."""
        return _along(self.x, x, self.left, WIDTH - _EDGE), _along(self.y, y, self.bottom, self.top)


def _along(axis: Axis, value: float, start: float, end: float) -> float:
    return round(start + (end - start) * (value - axis.low) / (axis.high - axis.low), 1)


def figure(key: str, title: str, text: Markup, height: float, *marks: Markup) -> Markup:
    """Return an image with its title and a text description; `key` is its name in the page."""
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title {}-text"><title id="{}-title">{}</title>'
        '<desc id="{}-text">{}</desc>{}</svg>'
    ).format(WIDTH, height, key, key, key, title, key, text, Markup("").join(marks))


def axes(plot: Plot, x_ticks: bool = True, y_ticks: int = 5) -> Markup:
    """Return lines, ticks and names of a plot's axes. The name of the y axis stands above it, so it is horizontal."""
    parts = []
    for value, text in plot.y.ticks(y_ticks):
        _, y = plot.at(plot.x.low, value)
        parts.append(_line("grid", plot.left, y, WIDTH - _EDGE, y))
        parts.append(text_mark("tick", plot.left - 6, y + 4, text, "end"))
    parts.append(text_mark("axis", 0, plot.top - 14, plot.y.name))
    if x_ticks:
        for value, text in plot.x.ticks():
            x, _ = plot.at(value, plot.y.low)
            parts.append(_line("grid", x, plot.bottom, x, plot.bottom + 4))
            parts.append(text_mark("tick", x, plot.bottom + 17, text, "middle"))
        parts.append(text_mark("axis", (plot.left + WIDTH - _EDGE) / 2, plot.bottom + 35, plot.x.name, "middle"))
    parts.append(_line("frame", plot.left, plot.bottom, WIDTH - _EDGE, plot.bottom))
    return Markup("").join(parts)


def legend(*series: tuple[str, str], bars: bool = False) -> Markup:
    """Return a legend as HTML, from the class and the name of each series."""
    items = []
    for kind, name in series:
        key = _bar(kind, 1, 2, 18, 8) if bars else _line(f"whisker {kind}", 1, 6, 19, 6) + marker(kind, 10, 6)
        items.append(
            Markup('<span class="of"><svg class="key" viewBox="0 0 20 12" aria-hidden="true">{}</svg>{}</span>').format(
                key, name
            )
        )
    return Markup('<p class="legend">{}</p>').format(Markup(" ").join(items))


def marker(kind: str, x: float, y: float) -> Markup:
    """Return the mark of a series: a diamond for predictions, a square for baselines, otherwise a dot."""
    if kind in ("predicted", "gain"):
        path = f"M{x:g},{y - 5:g}L{x + 5:g},{y:g}L{x:g},{y + 5:g}L{x - 5:g},{y:g}Z"
        return Markup('<path class="dot {}" d="{}"/>').format(kind, path)
    if kind == "baseline":
        return Markup('<rect class="dot {}" x="{:g}" y="{:g}" width="7" height="7"/>').format(kind, x - 3.5, y - 3.5)
    return Markup('<circle class="dot {}" cx="{:g}" cy="{:g}" r="4"/>').format(kind, x, y)


def points(plot: Plot, kind: str, values: Sequence[tuple[float, float]]) -> Markup:
    """Return a mark at each point."""
    return Markup("").join(marker(kind, *plot.at(x, y)) for x, y in values)


def error_bars(plot: Plot, kind: str, values: Sequence[tuple[float, float, float]]) -> Markup:
    """Return a vertical interval at each x, from y to y."""
    parts = []
    for at, low, high in values:
        (x, start), (_, end) = plot.at(at, low), plot.at(at, high)
        parts.append(_line(f"whisker {kind}", x, start, x, end))
    return Markup("").join(parts)


def path(plot: Plot, kind: str, values: Sequence[tuple[float, float]]) -> Markup:
    """Return a line through points."""
    coordinates = " ".join("{:g},{:g}".format(*plot.at(x, y)) for x, y in values)
    return Markup('<polyline class="path {}" points="{}"/>').format(kind, coordinates)


def bars(plot: Plot, kind: str, edges: Sequence[float], heights: Sequence[float]) -> Markup:
    """Return vertical bars between neighboring edges."""
    parts = []
    for low, high, value in zip(edges[:-1], edges[1:], heights, strict=True):
        (left, top), (right, bottom) = plot.at(low, value), plot.at(high, plot.y.low)
        parts.append(_bar(kind, left + 0.5, top, right - left - 1, bottom - top))
    return Markup("").join(parts)


@dataclass(frozen=True)
class Mark:
    """One mark of a row: a point with its interval from low to high, or a bar without a point."""

    kind: str
    ends: Sequence[float]
    point: float | None = None


@dataclass(frozen=True)
class FigureRow:
    """One row of a figure: its label, the number at its right, and its marks."""

    label: str
    marks: Sequence[Mark]
    number: Markup = field(default_factory=Markup)
    strong: bool = False


def row_figure(
    key: str, title: str, text: Markup, rows: Sequence[FigureRow], x: Axis, reference: float | None = None
) -> Markup:
    """Return a figure of rows. Labels stand above the marks, so both have the full width.

    `reference` draws a vertical line at the value to compare with.
    """
    plot = Plot(x, Axis(0, 1, ""), top=0, bottom=1, left=_EDGE)
    marks, behind = [], []
    top = 4.0
    for row in rows:
        marks.append(text_mark("label strong" if row.strong else "label", 0, top + 12, _short(row.label), of_run=True))
        marks.append(text_mark("value", WIDTH, top + 12, row.number, "end"))
        for n, mark in enumerate(row.marks):
            y = top + 23 + 11 * n
            (left, _), (right, _) = (plot.at(end, 0) for end in mark.ends)
            if mark.point is None:
                marks.append(_bar(mark.kind, left, y - 4, max(right - left, 1), 8))
            else:
                marks.append(_line(f"whisker {mark.kind}", left, y, right, y))
                marks.append(marker(mark.kind, plot.at(mark.point, 0)[0], y))
        top += 25 + 11 * len(row.marks)
    for value, tick in x.ticks():
        at, _ = plot.at(value, 0)
        behind.append(_line("grid", at, 4, at, top))
        behind.append(text_mark("tick", at, top + 17, tick, "middle"))
    if reference is not None:
        at, _ = plot.at(reference, 0)
        behind.append(_line("reference", at, 4, at, top))
    behind.append(_line("frame", _EDGE, top, WIDTH - _EDGE, top))
    behind.append(text_mark("axis", WIDTH / 2, top + 36, x.name, "middle"))
    return figure(key, title, text, top + 44, *behind, *marks)


def _short(label: str) -> str:
    cut = label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
    return f"{_ISOLATE}{cut}{_END}"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}"/>').format(kind, x1, y1, x2, y2)


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="bar {}" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>').format(
        kind, x, y, width, height
    )


def text_mark(kind: str, x: float, y: float, text: str | Markup, anchor: str = "start", of_run: bool = False) -> Markup:
    """Return a text at a position. A text `of_run`, such as a model's name, may show digits that are no results."""
    return Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}"{}>{}</text>').format(
        kind, x, y, anchor, Markup(" data-text") if of_run else "", text
    )
