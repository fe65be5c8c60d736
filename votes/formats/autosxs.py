"""Judgments of Vertex AI's AutoSxS."""

from __future__ import annotations

from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, one_vote
from votes.format import Reading, Row, VoteFormat, compare_answers, text, winner_outcome
from votes.formats.pandalm import join_input


@FORMATS.register
class AutoSxsFormat(VoteFormat):
    """The context comes after the instruction."""

    name = "autosxs"
    summary = "Vertex AI AutoSxS judgments: inference_instruction, response_a, response_b, choice"
    texts = frozenset({"inference_instruction", "response_a", "response_b"})
    votes = frozenset({"choice"})
    others = frozenset({"inference_context"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        prompt = join_input(text(row, "inference_instruction"), row.get("inference_context"))
        votes = one_vote(winner_outcome(row.get("choice"))) if reading.labeled else ()
        yield compare_answers(prompt, text(row, "response_a"), text(row, "response_b"), votes)
