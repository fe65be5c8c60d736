"""PandaLM's test set: an instruction, an input, two answers, three annotators."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote
from votes.format import Reading, Row, VoteFormat, choice, compare_answers, text

_ANNOTATOR: Final = re.compile(r"annotator\d+")


@FORMATS.register
class PandaLmFormat(VoteFormat):
    """Each annotator says 1, 2, or 0 for a tie."""

    name = "pandalm"
    summary = "PandaLM: instruction, input, response1, response2, annotator1 to annotator3"
    texts = frozenset({"instruction", "input", "response1", "response2"})
    votes = frozenset({"annotator1"})
    others = frozenset({"cmp_key", *(f"annotator{n}" for n in range(1, 10))})
    ids = ("idx",)

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        prompt = join_input(text(row, "instruction"), row.get("input"))
        a, _, b = str(row.get("cmp_key") or "").partition("_")
        models = {"model_a": a, "model_b": b} if a and b and "_" not in b else {}
        votes = _votes(row) if reading.labeled else ()
        yield compare_answers(prompt, text(row, "response1"), text(row, "response2"), votes, **models)


def join_input(instruction: str, given: object) -> str:
    """Return an instruction with its input, if it has one, as one prompt."""
    return f"{instruction}\n\n{given}" if isinstance(given, str) and given.strip() else instruction


def _votes(row: Row) -> Sequence[Vote]:
    names = sorted(name for name in row if _ANNOTATOR.fullmatch(name) and row[name] not in (None, ""))
    if not names:
        raise InvalidRow("no annotator has voted")
    votes = [(name, choice(row, name, {0: "tie", 1: "a", 2: "b"})[0]) for name in names]
    return [Vote(vote.shares, name) for name, vote in votes]
