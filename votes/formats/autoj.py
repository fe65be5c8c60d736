"""Auto-J's pairwise test set: columns with spaces, 2 for a tie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.registry import FORMATS
from votes.format import Reading, Row, VoteFormat, choice, compare_answers, text

if TYPE_CHECKING:
    from votes.comparison import Comparison


@FORMATS.register
class AutoJFormat(VoteFormat):
    """`label` is 0 for the first answer, 1 for the second, 2 for a tie."""

    name = "autoj"
    summary = 'Auto-J: prompt, "response 1", "response 2", label'
    texts = frozenset({"prompt", "response 1", "response 2"})
    votes = frozenset({"label"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = choice(row, "label", {0: "a", 1: "b", 2: "tie"}) if reading.labeled else ()
        yield compare_answers(text(row, "prompt"), text(row, "response 1"), text(row, "response 2"), votes)
