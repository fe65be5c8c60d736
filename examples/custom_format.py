"""Add a vote format: a log of duels, one line for each, with the winner's answer named by its color.

    tiebreak ingest --config configs/demo.yaml --plugin examples/custom_format.py --set data.train=duels.jsonl

A line is {"task": "...", "red": "...", "blue": "...", "prefers": "red", "who": "ann"}.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.registry import FORMATS
from votes.format import Reading, Row, VoteFormat, choice, compare_answers, text

if TYPE_CHECKING:
    from votes.comparison import Comparison


@FORMATS.register
class DuelFormat(VoteFormat):
    """Red is A, blue is B."""

    name = "duel"
    summary = "duels: task, red, blue, prefers"
    texts = frozenset({"task", "red", "blue"})
    votes = frozenset({"prefers"})
    voters = ("who",)

    def read(self, row: Row, reading: Reading) -> Iterable["Comparison"]:
        """Return the comparison of a line."""
        votes = choice(row, "prefers", {"red": "a", "blue": "b", "neither": "tie"}) if reading.labeled else ()
        yield compare_answers(text(row, "task"), text(row, "red"), text(row, "blue"), votes)
