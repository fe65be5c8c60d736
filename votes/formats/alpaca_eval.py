"""AlpacaEval's annotations: a preference from 1 (the first output) to 2 (the second)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.registry import FORMATS
from votes.format import Reading, Row, VoteFormat, compare_answers, preference, text

if TYPE_CHECKING:
    from votes.comparison import Comparison


@FORMATS.register
class AlpacaEvalFormat(VoteFormat):
    """A preference between 1 and 2 is the annotator's probability of the second output; 1.5 and 0 are ties."""

    name = "alpaca_eval"
    summary = "AlpacaEval annotations: instruction, output_1, output_2, preference"
    texts = frozenset({"instruction", "output_1", "output_2"})
    votes = frozenset({"preference"})
    ids = ()
    models_a = ("generator_1",)
    models_b = ("generator_2",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        votes = preference(row) if reading.labeled else ()
        yield compare_answers(text(row, "instruction"), text(row, "output_1"), text(row, "output_2"), votes)
