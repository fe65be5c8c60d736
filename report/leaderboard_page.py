"""Render leaderboard/index.html: ratings with intervals, ranks, win rates, and what predictions changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from report.figures import escape_text, join_sentences
from report.numbers import json_pointer, marked_number, replace_invalid_characters
from report.page import page_environment
from report.svg import WIDTH, FigureRow, Mark, axis_around, figure, row_figure, text_mark

if TYPE_CHECKING:
    from report.section import Metrics

_FIGURE_MODELS: Final = 30  # in the figure of ratings
_MAP_MODELS: Final = 40  # in the heat map
_NUMBERED: Final = 10  # models up to which the cells of the heat map have room for numbers
_NAMES: Final = 136  # width of names beside the heat map
_SECTIONS: Final = (("ratings", "Ratings"), ("win-rates", "Win rates"), ("slices", "Slices"), ("method", "Method"))


def render_leaderboard(result: Metrics) -> str:
    """Return the page of ratings.json: one self-contained HTML file."""
    environment = page_environment(result)
    figures = {"ratings": ratings_figure(result), "win_rates": heat_map(result)}
    sections = [{"name": "summary", "title": "", "html": _render(environment, "summary", figures)}]
    sections += [
        {"name": name, "title": title, "html": html}
        for name, title in _SECTIONS
        if (html := _render(environment, name, figures))
    ]
    page = environment.get_template("page.html").render(sections=sections, title="Leaderboard")
    return replace_invalid_characters(page)


def _render(environment: object, name: str, figures: dict[str, Markup]) -> Markup:
    template = environment.get_template(f"leaderboard/{name}.html")  # type: ignore[attr-defined]
    return Markup(template.render(figures=figures, shown=_FIGURE_MODELS, mapped=_MAP_MODELS).strip())


def ratings_figure(result: Metrics) -> Markup:
    """Return the ratings of the first models with intervals, and by votes alone where predictions are used."""
    rows, texts, ends = [], [], []
    for n, model in enumerate(result["models"][:_FIGURE_MODELS]):
        keys = ("models", n)
        marks = [Mark("predicted" if result["alone"] else "model", (model["lower"], model["upper"]), model["rating"])]
        ends += [model["lower"], model["upper"]]
        if result["alone"]:
            marks.append(Mark("baseline", (model["votes_lower"], model["votes_upper"]), model["votes_rating"]))
            ends += [model["votes_lower"], model["votes_upper"]]
        rating = marked_number(result, ",.0f", *keys, "rating", tag="tspan")
        rows.append(FigureRow(model["model"], marks, rating))
        texts.append(
            Markup("{}: {}, from {} to {}").format(
                escape_text(model["model"]),
                *(marked_number(result, ",.0f", *keys, name) for name in ("rating", "lower", "upper")),
            )
        )
    axis = axis_around(ends, "rating, 95% interval")
    return row_figure("leaderboard-ratings", "Ratings", join_sentences(texts), rows, axis)


def heat_map(result: Metrics) -> Markup:
    """Return the win rates of the first models against each other, darker where further from one half."""
    models = [row["model"] for row in result["models"][:_MAP_MODELS]]
    rates = result["win_rates"]["rate"]
    side = (WIDTH - _NAMES) / len(models)
    marks = []
    top = 22.0
    for i, name in enumerate(models):
        y = top + i * side
        if side >= 9 or i % 2 == 0:
            marks.append(text_mark("tick", _NAMES - 6, y + side / 2 + 4, _cut(f"{i + 1}. {name}"), "end", of_run=True))
        for j, rate in enumerate(rates[i][: len(models)]):
            if i == j or rate is None:
                continue
            kind = "model" if rate >= 0.5 else "blend"
            x = _NAMES + j * side
            marks.append(
                Markup(
                    '<rect class="bar {}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" fill-opacity="{:.3f}"'
                    ' data-key="{}" data-value="{:.6f}"/>'
                ).format(
                    kind, x, y, side - 0.5, side - 0.5, min(abs(rate - 0.5) * 2, 1.0),
                    json_pointer("win_rates", "rate", i, j), rate,
                )
            )  # fmt: skip
            if len(models) <= _NUMBERED:
                number = marked_number(result, ".0%", "win_rates", "rate", i, j, tag="tspan")
                marks.append(text_mark("tick", x + side / 2, y + side / 2 + 4, number, "middle"))
    step = max(1, round(24 / side))
    for j in range(0, len(models), step):
        marks.append(text_mark("tick", _NAMES + (j + 0.5) * side, top - 6, str(j + 1), "middle"))
    text = Markup("Win rates of models against each other; all numbers are in win_rates.csv.")
    return figure("leaderboard-map", "Win rates", text, top + len(models) * side + 4, *marks)


def _cut(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"
