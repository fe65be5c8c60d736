"""Preference data for fine-tuning at OpenAI, Together and Fireworks."""

from __future__ import annotations

from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, one_vote
from votes.format import Reading, Row, VoteFormat, cell, compare_answers


@FORMATS.register
class OpenAiDpoFormat(VoteFormat):
    """`input` holds the messages before the answer."""

    name = "openai_dpo"
    summary = "OpenAI DPO: input.messages, preferred_output, non_preferred_output"
    ranked = True
    texts = frozenset({"input", "preferred_output", "non_preferred_output"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row, with the preferred answer as A."""
        context = cell(row, "input")
        messages = context.get("messages") if isinstance(context, dict) else None
        if not messages:
            raise InvalidRow("input has no messages")
        votes = one_vote("a") if reading.labeled else ()
        a, b = cell(row, "preferred_output"), cell(row, "non_preferred_output")
        yield compare_answers(messages, a, b, votes)
