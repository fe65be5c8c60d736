"""Label Studio's exports of the Pairwise template: JSON with annotations, and JSON-MIN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from core.registry import FORMATS
from votes.comparison import Comparison, InvalidRow, Vote
from votes.format import Reading, Row, VoteFormat, cell, compare_answers, winner_outcome

_PROMPTS: Final = ("prompt", "instruction", "question", "input", "query")
# Pairs of names for the two answers, the left one first.
_ANSWERS: Final = (
    ("text1", "text2"),
    ("answer1", "answer2"),
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("answer_a", "answer_b"),
    ("response_a", "response_b"),
    ("left", "right"),
)


@FORMATS.register
class LabelStudioFormat(VoteFormat):
    """An annotation's result of the type pairwise holds left or right."""

    name = "label_studio"
    summary = "Label Studio JSON: data, annotations"
    texts = frozenset({"data"})
    votes = frozenset({"annotations"})
    others = frozenset({"predictions"})

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of a task."""
        data = cell(row, "data")
        if not isinstance(data, dict):
            raise InvalidRow("data is not an object")
        annotations = _annotations(row, reading) if reading.labeled else []
        results = [(annotation, _result(annotation)) for annotation in annotations]
        names = next((str(result["to_name"]).split(",") for _, result in results if result.get("to_name")), [])
        prompt, a, b = find_texts(data, names)
        votes = [
            Vote(
                {winner_outcome(result["value"].get("selected")): 1.0},
                _voter(annotation.get("completed_by", annotation.get("model_version"))),
            )
            for annotation, result in results
            if result
        ]
        if reading.labeled and not votes:
            raise InvalidRow("no annotation has a pairwise result")
        yield compare_answers(prompt, a, b, votes)


@FORMATS.register
class LabelStudioMinFormat(VoteFormat):
    """One row for each annotation; the column of the control holds left or right."""

    name = "label_studio_min"
    summary = "Label Studio JSON-MIN: two texts, a control with left or right, annotator, annotation_id"
    texts = frozenset({"id"})
    votes = frozenset({"annotator", "annotation_id"})

    def fits(self, names: frozenset[str], rows: Sequence[Row], labeled: bool) -> bool:
        """Return whether the columns are these, with two answers under known names."""
        return labeled and super().fits(names, rows, labeled) and any(names >= {*pair} for pair in _ANSWERS)

    @property
    def columns(self) -> frozenset[str]:
        """All columns, since the name of the control is the user's."""
        return frozenset()

    def read(self, row: Row, reading: Reading) -> Iterable[Comparison]:
        """Return the comparison of an annotation."""
        prompt, a, b = find_texts(row, [])
        known = {"left": "a", "right": "b"}
        chosen = [value for name, value in row.items() if isinstance(value, str) and value in known]
        if len(chosen) != 1:
            raise InvalidRow("no column, or more than one, holds left or right")
        yield compare_answers(prompt, a, b, [Vote({winner_outcome(chosen[0]): 1.0})])


def find_texts(data: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, Any, Any]:
    """Return prompt and answers of a task; `names` are those of the two answers if known. Raises InvalidRow."""
    pairs = [tuple(names)] if len(names) == 2 and all(name in data for name in names) else _ANSWERS
    pair = next((pair for pair in pairs if all(data.get(name) is not None for name in pair)), None)
    prompt = next((data[name] for name in _PROMPTS if data.get(name) is not None), None)
    if pair is None or prompt is None:
        raise InvalidRow("the task has no prompt and two answers under known names")
    return prompt, data[pair[0]], data[pair[1]]


def _annotations(row: Row, reading: Reading) -> Sequence[Mapping[str, Any]]:
    """Return people's annotations; those of models, in `predictions`, if judges are read. Raises InvalidRow."""
    if reading.judges and not row.get("predictions"):
        raise InvalidRow("no model has judged the task")  # people's annotations are no verdicts of judges
    annotations: Sequence[Mapping[str, Any]] = cell(row, "predictions" if reading.judges else "annotations")
    return annotations


def _result(annotation: Mapping[str, Any]) -> dict[str, Any]:
    if annotation.get("was_cancelled"):
        return {}
    results = annotation.get("result") or []
    return next((result for result in results if result.get("type") == "pairwise" and result.get("value")), {})


def _voter(completed_by: Any) -> str | None:  # noqa: ANN401 - a number, or an object with an id
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("id") or completed_by.get("email")
    return None if completed_by is None else str(completed_by)
