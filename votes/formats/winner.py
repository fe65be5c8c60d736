"""Tables with one column that names the winner: the WSDM Cup, and most teams' own exports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from core.registry import FORMATS
from votes.comparison import Comparison, one_vote
from votes.format import Reading, Row, VoteFormat, winner_outcome
from votes.texts import read_texts


@FORMATS.register
class WinnerFormat(VoteFormat):
    """Texts as in the Kaggle shape; `winner` is model_a, A, left, tie, both_bad and so on."""

    name = "winner"
    summary = "WSDM Cup, and most teams' tables: prompt, response_a, response_b, winner"
    has_kinds = True
    texts = frozenset({"prompt", "response_a", "response_b"})
    votes = frozenset({"winner"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        comparison = read_texts(row, reading)
        votes = one_vote(winner_outcome(row.get("winner"), row)) if reading.labeled else ()
        return [dataclasses.replace(comparison, votes=votes)]
