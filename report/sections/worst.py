"""The records that the blend is most wrong about, with their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from votes.schema import LABELS, TEXTS

if TYPE_CHECKING:
    from votes.records import Records

Floats = npt.NDArray[np.float64]

COUNT = 20


def worst(ids: list[str], probabilities: Floats, labels: npt.NDArray[np.int8], losses: Floats) -> list[dict[str, Any]]:
    """The records of the largest losses (n,), the worst first: row, id, vote, loss and probabilities (n, 3)."""
    return [
        {
            "row": int(row),
            "id": ids[row],
            "vote": LABELS[labels[row]],
            "loss": float(losses[row]),
            "probabilities": dict(zip(LABELS, probabilities[row].tolist(), strict=True)),
        }
        for row in np.argsort(-losses, kind="stable")[:COUNT]
    ]


def read_texts(records: Records, rows: list[int]) -> dict[int, dict[str, Any]]:
    """Texts and models' names of some training records by row; one shard is in memory at a time."""
    found: dict[int, dict[str, Any]] = {}
    start = 0
    for shard in records.shards("train"):
        end = start + records.shard_rows(shard)
        inside = sorted(row for row in rows if start <= row < end)
        if inside:
            table = records.folder.read_table(shard, [*TEXTS, "model_a", "model_b"])
            found |= dict(zip(inside, table.take([row - start for row in inside]).to_pylist(), strict=True))
        start = end
    return found
