"""Annotated pairs 2.0, the format of ICAI and Feedback Forensics: an object with annotators and comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote
from votes.format import Reading, Row, VoteFormat, cell, compare_answers, winner_outcome


@FORMATS.register
class AnnotatedPairsFormat(VoteFormat):
    """Votes are those of annotators of the type human. Without any, all annotators vote."""

    name = "annotated_pairs"
    summary = "annotated-pairs 2.0: comparisons with prompt, response_a, response_b, annotations"
    texts = frozenset({"prompt", "response_a", "response_b"})
    votes = frozenset({"annotations"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        a, b = (_side(cell(row, name)) for name in ("response_a", "response_b"))
        votes = _votes(row, reading) if reading.labeled else ()
        yield compare_answers(
            cell(row, "prompt"), a.get("text"), b.get("text"), votes, model_a=a.get("model"), model_b=b.get("model")
        )


def _side(value: Any) -> dict[str, Any]:  # noqa: ANN401 - a cell of any format
    return value if isinstance(value, dict) else {"text": value}


def _votes(row: Row, reading: Reading) -> Sequence[Vote]:
    annotators = reading.outer.get("annotators") or {}
    people = {name for name, about in annotators.items() if isinstance(about, dict) and about.get("type") == "human"}
    annotations = {
        name: annotation.get("pref")
        for name, annotation in cell(row, "annotations").items()
        if isinstance(annotation, dict) and annotation.get("pref") is not None and (name in people or not people)
    }
    if not annotations:
        raise InvalidRow("no winner")
    return [Vote({winner_outcome(choice): 1.0}, name) for name, choice in annotations.items()]
