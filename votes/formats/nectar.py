"""Nectar: a prompt and a list of ranked answers."""

from __future__ import annotations

from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow
from votes.format import Reading, Row, VoteFormat, cell, compare_ranked, identifier, number, text


@FORMATS.register
class NectarFormat(VoteFormat):
    """Equal ranks are ties."""

    name = "nectar"
    summary = "Nectar: prompt, answers with rank and model"
    ranked = True
    texts = frozenset({"prompt", "answers"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparisons of a row's answers."""
        answers = cell(row, "answers")
        if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
            raise InvalidRow("answers is not a list of objects")
        ranked = []
        for answer in answers:
            if answer.get("answer") is None or answer.get("rank") is None:
                raise InvalidRow("an answer has no text or no rank")
            ranked.append((answer["answer"], number(answer, "rank"), answer.get("model")))
        yield from compare_ranked(text(row, "prompt"), ranked, reading.pairs, identifier(row.get("id")))
