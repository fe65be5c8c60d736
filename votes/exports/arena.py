"""The shape of Chatbot Arena's releases since the 33k set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.export import ExportedRecord, VoteExport, ballots_of, json_lines, to_messages

_WINNERS = ("model_a", "model_b", "tie", "tie (bothbad)")


@EXPORTS.register
class ArenaExport(VoteExport):
    """A row for each vote, whose judge is the voter."""

    name = "arena"
    summary = "Chatbot Arena: conversation_a, conversation_b, winner, judge"
    ending = ".jsonl"

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the rows of a record whose votes are for one outcome each."""
        sides = [to_messages(record.prompt, turns) for turns in (record.response_a, record.response_b)]
        return [
            {
                **{"question_id": record.id, "model_a": record.model_a, "model_b": record.model_b},
                **{"winner": _WINNERS[ballot.outcome], "judge": ballot.voter},
                **{"conversation_a": sides[0], "conversation_b": sides[1], "turn": len(record.prompt)},
                **{"anony": True, "language": record.language, "tstamp": ballot.time},
            }
            for ballot in ballots_of(record)
        ]

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield JSON Lines."""
        return json_lines(rows)
