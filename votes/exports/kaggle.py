"""The shape of the LMSYS competition on Kaggle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.comparison import OUTCOMES
from votes.export import ExportedRecord, VoteExport, ballots_of, csv_lines
from votes.schema import WINNERS


@EXPORTS.register
class KaggleExport(VoteExport):
    """A row for each known voter, else one row with the shares of the votes."""

    name = "kaggle"
    summary = "LMSYS competition: lists of turns, winner_model_a, winner_model_b, winner_tie"
    ending = ".csv"
    outcomes = OUTCOMES[:3]

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the rows of a record."""
        texts = {
            name: json.dumps(turns)
            for name, turns in (
                ("prompt", record.prompt),
                ("response_a", record.response_a),
                ("response_b", record.response_b),
            )
        }
        for ballot in ballots_of(record):
            winners = dict(zip(WINNERS, ballot.shares, strict=False))
            yield {
                **{"id": record.id, "model_a": record.model_a or "", "model_b": record.model_b or "", **texts},
                **{name: int(share) if share in (0, 1) else share for name, share in winners.items()},
                **{"voter": ballot.voter or "", "time": ballot.time or "", "language": record.language or ""},
            }

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield CSV."""
        return csv_lines(rows)
