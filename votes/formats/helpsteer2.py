"""HelpSteer2's preferences: a strength from -3 (the first answer) to 3 (the second)."""

from __future__ import annotations

from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, graded_vote
from votes.format import Reading, Row, VoteFormat, compare_answers, number, text


@FORMATS.register
class HelpSteer2Format(VoteFormat):
    """The strength becomes shares; see graded_vote."""

    name = "helpsteer2"
    summary = "HelpSteer2 preference: prompt, response_1, response_2, preference_strength"
    texts = frozenset({"prompt", "response_1", "response_2"})
    votes = frozenset({"preference_strength"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = graded_vote(number(row, "preference_strength"), 3) if reading.labeled else ()
        yield compare_answers(text(row, "prompt"), text(row, "response_1"), text(row, "response_2"), votes)
