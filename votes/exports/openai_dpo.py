"""Preference data for fine-tuning at OpenAI, Together and Fireworks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.export import ExportedRecord, VoteExport, json_lines


@EXPORTS.register
class OpenAiDpoExport(VoteExport):
    """The messages before the last answer, and the last answers."""

    name = "openai-dpo"
    summary = "OpenAI DPO: input.messages, preferred_output, non_preferred_output"
    ending = ".jsonl"
    one_winner = True

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the row of a record that has a winner and one context."""
        chosen, rejected = record.sides
        return [
            {
                "input": {"messages": record.context, "tools": [], "parallel_tool_calls": True},
                "preferred_output": [{"role": "assistant", "content": chosen[-1]}],
                "non_preferred_output": [{"role": "assistant", "content": rejected[-1]}],
            }
        ]

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield JSON Lines."""
        return json_lines(rows)
