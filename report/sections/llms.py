"""What the report says of language models: requests, tokens, records that failed, what a cascade costs and gains."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from core.stage import read_manifest
from votes import predictions

if TYPE_CHECKING:
    from core.run import Run

COUNTS = ("requests", "distinct_requests", "records_in_both_orders", "tokens", "failed")


def scoring(run: Run) -> dict[str, dict[str, Any]]:
    """By language model: what was asked of it, why records failed, and the curve of its cascade if it has one."""
    found = {}
    for llm in run.settings.llms:
        folder = run.folder / f"predictions/{llm.name}"
        metrics = (read_manifest(folder) or {"metrics": {}})["metrics"]
        if "requests" not in metrics:
            continue
        lost = folder.read_table(predictions.QUARANTINE, ["reason"])["reason"].to_pylist()
        reasons = collections.Counter(reason.partition(":")[0] for reason in lost)
        found[llm.name] = {
            **{name: metrics[name] for name in COUNTS},
            "position": metrics["position"],
            "only_unsure": llm.swap == "uncertain",
            "reasons": dict(reasons.most_common()),
            "cascade": metrics.get("cascade"),
        }
    return found
