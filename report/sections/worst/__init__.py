"""The records that the blend is most wrong about, with their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from report.section import ReportSection
from votes.schema import LABELS, TEXTS

if TYPE_CHECKING:
    from core.arrays import Doubles, Rows
    from report.context import ReportContext
    from report.section import Metrics
    from votes.records import Records

WORST_RECORDS = 20
MAX_CHARACTERS = 700  # longer texts are folded


@SECTIONS.register
class WorstSection(ReportSection):
    """The records that the blend is most wrong about."""

    name, title, order = "worst", "Worst", 100
    summary = "The records with the largest losses of the blend, with their texts."

    def compute(self, context: ReportContext) -> Metrics:
        """Return the records of the largest losses, the worst first: row, id, vote, loss and probabilities."""
        votes, losses = context.votes, context.blend_losses
        return {
            "worst": [
                {
                    "row": int(votes.records[row]),
                    "id": context.rows["id"][row].as_py(),
                    "vote": LABELS[votes.labels[row]],
                    "loss": float(losses[row]),
                    "probabilities": dict(zip(LABELS, context.blend[row].tolist(), strict=False)),
                }
                for row in _worst_rows(losses, votes.records)
            ]
        }

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return the texts of the records."""
        rows = [record["row"] for record in metrics["worst"]]
        return {"texts": _read_texts(context.records, rows), "max_characters": MAX_CHARACTERS}


def _worst_rows(losses: Doubles, records: Rows) -> list[int]:
    """Return the rows of the largest losses, one for each record."""
    rows: dict[int, int] = {}
    for row in np.argsort(-losses, kind="stable").tolist():
        rows.setdefault(int(records[row]), row)
        if len(rows) == WORST_RECORDS:
            break
    return list(rows.values())


def _read_texts(records: Records, rows: list[int]) -> dict[int, dict[str, Any]]:
    """Return texts and model names of some training records by row. Only one shard is in memory at a time."""
    texts: dict[int, dict[str, Any]] = {}
    start = 0
    for shard in records.shards("train"):
        end = start + records.shard_rows(shard)
        inside = sorted(row for row in rows if start <= row < end)
        if inside:
            table = records.folder.read_table(shard, [*TEXTS, "model_a", "model_b"])
            texts |= dict(zip(inside, table.take([row - start for row in inside]).to_pylist(), strict=True))
        start = end
    return texts
