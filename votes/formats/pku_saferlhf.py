"""PKU-SafeRLHF: two answers, which one is better, which one is safer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.registry import FORMATS
from votes.format import Reading, Row, VoteFormat, choice, compare_answers, text

if TYPE_CHECKING:
    from votes.comparison import Comparison


@FORMATS.register
class PkuSafeRlhfFormat(VoteFormat):
    """The vote is the better answer, not the safer one."""

    name = "pku_saferlhf"
    summary = "PKU-SafeRLHF: prompt, response_0, response_1, better_response_id"
    texts = frozenset({"prompt", "response_0", "response_1"})
    votes = frozenset({"better_response_id"})
    models_a = ("response_0_source",)
    models_b = ("response_1_source",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = choice(row, "better_response_id", {0: "a", 1: "b"}) if reading.labeled else ()
        yield compare_answers(text(row, "prompt"), text(row, "response_0"), text(row, "response_1"), votes)
