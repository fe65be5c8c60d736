"""Scoring with language models: requests, tokens, failed records, and what a cascade costs and gains."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from core.registry import SECTIONS
from core.stage import read_manifest
from report.section import ReportSection
from votes.predictions import QUARANTINE_FILE

if TYPE_CHECKING:
    from report.context import ReportContext
    from report.section import Metrics

REQUEST_COUNTS = ("requests", "distinct_requests", "records_in_both_orders", "tokens", "failed")


@SECTIONS.register
class ScoringSection(ReportSection):
    """Scoring with language models."""

    name, title, order = "scoring", "Scoring", 90
    summary = "Requests, tokens and failed records of each language model, and its cascade."

    def compute(self, context: ReportContext) -> Metrics:
        """Return by language model its requests, why records failed, and the curve of its cascade if it has one."""
        scoring = {}
        for llm in context.settings.llms:
            folder = context.folder / f"predictions/{llm.name}"
            metrics = (read_manifest(folder) or {"metrics": {}})["metrics"]
            if "requests" not in metrics:
                continue
            failures = folder.read_table(QUARANTINE_FILE, ["reason"])["reason"].to_pylist()
            reasons = collections.Counter(reason.partition(":")[0] for reason in failures)
            scoring[llm.name] = {
                **{name: metrics[name] for name in REQUEST_COUNTS},
                "position": metrics["position"],
                "only_unsure": llm.swap == "uncertain",
                "reasons": dict(reasons.most_common()),
                "cascade": metrics.get("cascade"),
            }
        return {"scoring": scoring}
