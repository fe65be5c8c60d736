"""Annotated pairs 2.0, the format of ICAI and Feedback Forensics: an object with annotators and comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote
from votes.format import Reading, Row, VoteFormat, cell, compare_answers, text, winner_outcome


@FORMATS.register
class AnnotatedPairsFormat(VoteFormat):
    """Votes are those of annotators of the type human, verdicts those of others. Without any, all annotators vote."""

    name = "annotated_pairs"
    summary = "annotated-pairs 2.0: comparisons with prompt, response_a, response_b, annotations"
    texts = frozenset({"prompt", "response_a", "response_b"})
    votes = frozenset({"annotations"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a row."""
        a, b = (_side(row, name) for name in ("response_a", "response_b"))
        votes = _votes(row, reading) if reading.labeled else ()
        yield compare_answers(
            [{"role": "user", "content": text(row, "prompt")}],
            text(a, "text"),
            text(b, "text"),
            votes,
            model_a=a.get("model"),
            model_b=b.get("model"),
        )


def _side(row: Row, name: str) -> Row:
    value = row.get(name)
    return value if isinstance(value, dict) else {"text": value}


def _votes(row: Row, reading: Reading) -> Sequence[Vote]:
    annotators = reading.outer.get("annotators") or {}
    people = {name for name in annotators if _about(annotators, name).get("type") == "human"}
    annotations = {
        name: annotation.get("pref")
        for name, annotation in cell(row, "annotations").items()
        if isinstance(annotation, dict)
        and annotation.get("pref") is not None
        and (not people or (name in people) != reading.judges)
    }
    if not annotations:
        raise InvalidRow("no winner")
    named = {name: None if _about(annotators, name).get("anonymous") else name for name in annotations}
    return [Vote({winner_outcome(choice): 1.0}, named[name]) for name, choice in annotations.items()]


def _about(annotators: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    about = annotators.get(name)
    return about if isinstance(about, dict) else {}
