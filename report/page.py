"""Render the page from its numbers: one self-contained HTML file."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from report.build import sections_in_order
from report.numbers import marked_interval, marked_name, marked_names, marked_number, replace_invalid_characters
from report.svg import legend

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

    from report.context import ReportContext
    from report.section import Metrics, ReportSection


def render_page(context: ReportContext, metrics: Metrics) -> str:
    """Return the page. Texts, names and settings are escaped, and what HTML cannot hold is replaced."""
    environment = page_environment(metrics)
    sections = [
        {"name": section.name, "title": section.title, "html": html}
        for section in sections_in_order()
        if (html := _render_section(section, environment, context, metrics))
    ]
    page = environment.get_template("page.html").render(sections=sections, title="Tiebreak report")
    return replace_invalid_characters(page)


def page_environment(metrics: Metrics) -> jinja2.Environment:
    """Return the environment of templates, with the numbers that they show."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        metrics=metrics,
        number=functools.partial(marked_number, metrics),
        interval=functools.partial(marked_interval, metrics),
        name=marked_name,
        names=marked_names,
        legend=legend,
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    return environment


def _render_section(
    section: ReportSection, environment: jinja2.Environment, context: ReportContext, metrics: Metrics
) -> Markup:
    """Return the HTML of a section; empty if it has nothing to show."""
    from markupsafe import Markup

    figures: dict[str, Any] = {name: functools.partial(draw, metrics) for name, draw in section.figures.items()}
    details = section.details(context, metrics)
    html = environment.from_string(section.template).render(figures=figures, **details)
    return Markup(html.strip())
