"""LLMBar's pairs: an instruction and two outputs, of which one follows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.registry import FORMATS
from votes.format import Reading, Row, VoteFormat, choice, compare_answers, text

if TYPE_CHECKING:
    from votes.comparison import Comparison


@FORMATS.register
class LlmBarFormat(VoteFormat):
    """`label` is 1 or 2."""

    name = "llmbar"
    summary = "LLMBar: input, output_1, output_2, label"
    texts = frozenset({"input", "output_1", "output_2"})
    votes = frozenset({"label"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = choice(row, "label", {1: "a", 2: "b"}) if reading.labeled else ()
        yield compare_answers(text(row, "input"), text(row, "output_1"), text(row, "output_2"), votes)
