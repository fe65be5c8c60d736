"""Preference data of TRL and of most reward models' training: chosen and rejected answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.registry import FORMATS
from votes.chat import read_messages, to_rounds
from votes.comparison import Comparison, one_vote
from votes.format import Reading, Row, VoteFormat, compare, compare_answers, text
from votes.formats.anthropic_hh import is_transcripts


@FORMATS.register
class TrlFormat(VoteFormat):
    """Texts or messages, with a prompt of its own or as the messages that both answers share."""

    name = "trl"
    summary = "TRL preference data, ultrafeedback_binarized: chosen, rejected, with or without prompt"
    ranked = True
    texts = frozenset({"chosen", "rejected"})
    others = frozenset({"prompt"})

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether the columns are these, and the answers are no transcripts."""
        return super().fits(names, rows, labeled) and ("prompt" in names or not is_transcripts(rows))

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row, with the chosen answer as A."""
        chosen, rejected = (text(row, name) for name in ("chosen", "rejected"))
        votes = one_vote("a") if reading.labeled else ()
        sides = [read_messages(value) for value in (chosen, rejected)]
        if all(side and side[0].role in ("user", "system") for side in sides):  # whole conversations
            a, b = (to_rounds(side or []) for side in sides)
            return [compare(a, b, votes)]
        return [compare_answers(text(row, "prompt"), chosen, rejected, votes)]
