"""The report's page from its numbers: one self-contained HTML file."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from core.registry import ENGINES
from core.stage import read_manifest
from report import numbers, svg
from report.figures import plots
from report.sections.worst import read_texts

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.schema import Settings
    from votes.records import Records

LONG = 700  # characters of a text above which it is folded away


def page(run: Run, records: Records, metrics: dict[str, Any]) -> str:
    """The page. Whatever texts, names and settings hold is escaped, and what HTML cannot hold is replaced."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rendered = environment.get_template("report.html").render(
        m=metrics,
        n=functools.partial(numbers.number, metrics),
        between=functools.partial(numbers.interval, metrics),
        name=numbers.name,
        plot=plots(metrics),
        legend=svg.legend,
        texts=read_texts(records, [each["row"] for each in metrics["worst"]]),
        long=LONG,
        settings=run.settings.model_dump_json(indent=2),
        catalogue=_catalogue(read_manifest(run.folder / "features") or {}),
        had_a_say=_had_a_say(run.settings),
        came_trained=run.settings.came_trained,
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    return numbers.clean(rendered)


def _had_a_say(settings: Settings) -> list[tuple[str, str]]:
    """What the votes that models are scored on did decide, and of which models."""
    stopped = [
        booster.name
        for booster in settings.boosters
        if booster.early_stopping_rounds is not None and ENGINES.get(booster.engine).has_rounds
    ]
    searched = [search.booster for search in settings.tune]
    taught = [model.name for model in settings.finetune.models if model.teacher is not None]
    found = {"when to stop training": stopped, "the search for settings of": searched, "the teacher of": taught}
    return [(what, ", ".join(names)) for what, names in found.items() if names]


def _catalogue(features: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The entries of the feature catalogue by family."""
    families: dict[str, list[dict[str, Any]]] = {}
    for entry in features.get("catalogue", []):
        families.setdefault(entry["family"], []).append(entry)
    return families
