"""The features that boosters see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.registry import SECTIONS
from core.stage import read_manifest
from report.section import ReportSection

if TYPE_CHECKING:
    from core.storage import Folder
    from report.context import ReportContext
    from report.section import Metrics


@SECTIONS.register
class FeaturesSection(ReportSection):
    """The catalog of features."""

    name, title, order = "features", "Features", 120
    summary = "The catalog of features by family, with their views, units and meanings."

    def compute(self, context: ReportContext) -> Metrics:
        """Return the number of columns by family."""
        columns: dict[str, int] = {}
        for entry in _catalog(context.folder):
            columns[entry["family"]] = columns.get(entry["family"], 0) + entry.get("columns", 1)
        return {"features": columns}

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return the entries of the catalog by family."""
        families: dict[str, list[dict[str, Any]]] = {}
        for entry in _catalog(context.folder):
            families.setdefault(entry["family"], []).append(entry)
        return {"catalog": families}


def _catalog(folder: Folder) -> list[dict[str, Any]]:
    manifest = read_manifest(folder / "features") or {}
    return list(manifest.get("catalogue", []))
