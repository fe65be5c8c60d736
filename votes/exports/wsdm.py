"""The shape of the WSDM Cup: one winner of two, in Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.export import ExportedRecord, VoteExport, parquet_file, single_turn


@EXPORTS.register
class WsdmExport(VoteExport):
    """Records of one turn with a winner: this shape has plain texts."""

    name = "wsdm"
    summary = "WSDM Cup: prompt, response_a, response_b, winner, language"
    ending = ".parquet"
    one_winner = True

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the row of a record that has a winner."""
        _ = record.sides  # refuses ties
        texts = single_turn(record)
        return [
            {
                **dict(zip(("prompt", "response_a", "response_b"), texts, strict=True)),
                **{
                    "id": record.id,
                    "winner": f"model_{record.winner}",
                    "model_a": record.model_a,
                    "model_b": record.model_b,
                },
                "language": record.language,
            }
        ]

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield a Parquet file."""
        names = ("id", "prompt", "response_a", "response_b", "winner", "model_a", "model_b", "language")
        return parquet_file(rows, names)
