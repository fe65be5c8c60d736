"""The searches for boosters' parameters."""

from __future__ import annotations

import csv
from types import MappingProxyType
from typing import TYPE_CHECKING

from core.registry import SECTIONS
from core.stage import read_manifest
from report.section import ReportSection
from report.sections.search.figures import search_figure
from tune.stage import TRIALS_FILE

if TYPE_CHECKING:
    from report.context import ReportContext
    from report.section import Metrics


@SECTIONS.register
class SearchSection(ReportSection):
    """Searches for parameters."""

    name, title, order = "search", "Search", 70
    summary = "The trials of each parameter search, and the best of them."
    figures = MappingProxyType({"search": search_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return by booster the trials in the order of their ends, and the best trial."""
        searches = {}
        for search in context.settings.tune:
            folder = context.folder / f"tune/{search.booster}"
            manifest = read_manifest(folder)
            if manifest is None:
                continue
            trials = [
                {
                    "trial": int(row["trial"]),
                    "at": float(row["at"]),
                    "log_loss": float(row["log_loss"]),
                    "rounds": int(row["rounds"]),
                    "stopped": row["stopped"] == "1",
                }
                for row in csv.DictReader(folder.read_bytes(TRIALS_FILE).decode().splitlines())
            ]
            ordered = sorted(trials, key=lambda trial: float(trial["at"]))
            best = manifest["metrics"]["best"]
            searches[search.booster] = {"count": len(ordered), "trials": ordered, "best": best}
        return {"search": searches}
