"""AlpacaEval's annotations: a preference from 1 (the first output) to 2 (the second)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote, one_vote, soft_vote
from votes.format import Reading, Row, VoteFormat, compare_answers, number, text


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
        votes: Sequence[Vote] = ()
        if reading.labeled:
            preference = number(row, "preference")
            if preference and not 1 <= preference <= 2:
                raise InvalidRow("preference is neither 0 nor between 1 and 2")
            is_tie = preference in (0, 1.5)
            votes = one_vote("tie") if is_tie else soft_vote({"a": 2 - preference, "b": preference - 1})
        yield compare_answers(text(row, "instruction"), text(row, "output_1"), text(row, "output_2"), votes)
