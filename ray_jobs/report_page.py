"""The report's page from its numbers: one self-contained HTML file."""

import functools
import time
from typing import Any

from ray_jobs import report_figures, report_numbers
from ray_jobs.artifacts import read_manifest
from ray_jobs.records import Records
from ray_jobs.report_plots import plots
from ray_jobs.report_worst import read_texts
from ray_jobs.run import Run

LONG = 700  # characters of a text above which it is folded away


def page(run: Run, records: Records, metrics: dict[str, Any]) -> str:
    """The page. Whatever texts, names and settings hold is escaped, and what HTML cannot hold is replaced."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ray_jobs"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rendered = environment.get_template("report.html").render(
        m=metrics,
        n=functools.partial(report_numbers.number, metrics),
        between=functools.partial(report_numbers.interval, metrics),
        name=report_numbers.name,
        plot=plots(metrics),
        legend=report_figures.legend,
        texts=read_texts(records, [each["row"] for each in metrics["worst"]]),
        long=LONG,
        settings=run.settings.model_dump_json(indent=2),
        catalogue=_catalogue(read_manifest(run.folder / "features") or {}),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    return report_numbers.clean(rendered)


def _catalogue(features: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The entries of the feature catalogue by family."""
    families: dict[str, list[dict[str, Any]]] = {}
    for entry in features.get("catalogue", []):
        families.setdefault(entry["family"], []).append(entry)
    return families
