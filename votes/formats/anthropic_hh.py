"""Anthropic's HH data: two transcripts that differ in their last answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.registry import FORMATS
from votes.chat import read_transcript, to_rounds
from votes.comparison import Comparison, InvalidRow, one_vote
from votes.format import Reading, Row, VoteFormat, compare


def is_transcripts(rows: Sequence[Row]) -> bool:
    """Return whether the chosen answers of the first rows are transcripts."""
    chosen = [row.get("chosen") for row in rows]
    return any(isinstance(text, str) and read_transcript(text) is not None for text in chosen)


@FORMATS.register
class AnthropicHhFormat(VoteFormat):
    r"""Transcripts with "\n\nHuman: " and "\n\nAssistant: " before the turns."""

    name = "anthropic_hh"
    summary = "Anthropic HH: chosen and rejected transcripts"
    ranked = True
    texts = frozenset({"chosen", "rejected"})

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether there is no prompt, and the answers are transcripts."""
        return super().fits(names, rows, labeled) and "prompt" not in names and is_transcripts(rows)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row, with the chosen answer as A."""
        sides = []
        for name in ("chosen", "rejected"):
            text = row.get(name)
            messages = read_transcript(text) if isinstance(text, str) else None
            if messages is None:
                raise InvalidRow(f"{name} is not a transcript")
            sides.append(to_rounds(messages))
        votes = one_vote("a") if reading.labeled else ()
        return [compare(sides[0], sides[1], votes)]
