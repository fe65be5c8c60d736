"""HelpSteer3's preferences: a context of messages, and an overall preference from -3 to 3."""

from __future__ import annotations

from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, graded_vote
from votes.format import Reading, Row, VoteFormat, cell, compare_answers, number, text


@FORMATS.register
class HelpSteer3Format(VoteFormat):
    """The overall preference becomes shares; see graded_vote."""

    name = "helpsteer3"
    summary = "HelpSteer3 preference: context, response1, response2, overall_preference"
    texts = frozenset({"context", "response1", "response2"})
    votes = frozenset({"overall_preference"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = graded_vote(number(row, "overall_preference"), 3) if reading.labeled else ()
        yield compare_answers(cell(row, "context"), text(row, "response1"), text(row, "response2"), votes)
