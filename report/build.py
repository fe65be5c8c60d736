"""Compute metrics.json from the sections: every number that index.html shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.registry import SECTIONS, plugin_digest
from core.stage import Stage
from votes import predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.run import Run
    from report.context import ReportContext
    from report.section import Metrics, ReportSection
    from votes.records import Records

METRICS, PAGE = "metrics.json", "index.html"
# Part of the fingerprint. Raise it when the same run is reported differently.
VERSION = 5


def report_stage(run: Run, records: Records, blend_manifest: Mapping[str, Any]) -> Stage:
    """Return the stage of report/. Raises InputError with the name of a model without finished predictions."""
    return Stage(
        "report",
        run.folder / "report",
        settings={
            "version": VERSION,
            "versions": {section.name: plugin_digest(section) for section in sections_in_order()},
            **run.settings.model_dump(mode="json"),  # the page shows all settings
        },
        inputs={
            "blend": blend_manifest["fingerprint"],
            **predictions.model_fingerprints(run, records, run.settings.models),
        },
    )


def sections_in_order() -> list[ReportSection]:
    """Return all sections in the order of the page."""
    return sorted(SECTIONS, key=lambda section: (section.order, section.name))


def compute_metrics(context: ReportContext) -> Metrics:
    """Return the numbers of all sections. Raises InputError if two sections write the same key."""
    metrics: Metrics = {}
    written_by: dict[str, str] = {}
    for section in sections_in_order():
        for key, value in section.compute(context).items():
            if key in metrics:
                raise InputError(
                    f"the report sections {written_by[key]!r} and {section.name!r} both write {key!r} to {METRICS}",
                    fix="give the numbers of one section another key.",
                )
            metrics[key], written_by[key] = value, section.name
    return metrics
