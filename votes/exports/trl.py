"""TRL's preference data: the prompt as messages, the chosen and the rejected answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.export import ExportedRecord, NotHeldError, VoteExport, json_lines, to_messages


@EXPORTS.register
class TrlExport(VoteExport):
    """Where the answers differ before the last round, both are whole conversations without a prompt of its own."""

    name = "trl"
    summary = "TRL preference data: prompt, chosen, rejected as messages; margin"
    ending = ".jsonl"
    one_winner = True
    has_margin = True

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the row of a record that has a winner."""
        sides = record.sides
        try:
            prompt = {"prompt": record.context}
            chosen, rejected = ([{"role": "assistant", "content": turns[-1]}] for turns in sides)
        except NotHeldError:
            prompt = {}
            chosen, rejected = (to_messages(record.prompt, turns) for turns in sides)
        margin = {} if record.margin is None else {"margin": record.margin if record.winner == "a" else -record.margin}
        return [{"id": record.id, **prompt, "chosen": chosen, "rejected": rejected, **margin}]

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield JSON Lines."""
        return json_lines(rows)
