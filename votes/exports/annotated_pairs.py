"""Annotated pairs 2.0, the format of ICAI and Feedback Forensics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.export import ExportedRecord, NotHeldError, VoteExport, ballots_of, single_turn

_PREFERENCES = ("a", "b", "tie", "both_bad")


@EXPORTS.register
class AnnotatedPairsExport(VoteExport):
    """Records of one turn; each voter is an annotator, and unknown voters are one."""

    name = "annotated-pairs"
    summary = "annotated-pairs 2.0: comparisons with annotations"
    ending = ".json"

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the comparison of a record whose votes are for one outcome each."""
        prompt, a, b = single_turn(record)
        annotations = {}
        for number, (voter, shares) in enumerate(ballots_of(record)):
            if max(shares) != 1:
                raise NotHeldError("a soft vote")
            annotations[voter or f"person-{number + 1}"] = {"pref": _PREFERENCES[list(shares).index(1)]}
        return [
            {
                **{"id": record.id, "prompt": prompt, "annotations": annotations},
                "response_a": {"text": a, "model": record.model_a},
                "response_b": {"text": b, "model": record.model_b},
            }
        ]

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield one JSON object, whose annotators come last: they are known when all rows are written."""
        yield b'{"metadata": {"version": "2.0"}, "comparisons": ['
        annotators: dict[str, None] = {}
        for number, row in enumerate(rows):
            annotators |= dict.fromkeys(row["annotations"])
            yield (",\n" if number else "\n").encode() + json.dumps(row, ensure_ascii=False).encode()
        people = {name: {"name": name, "type": "human"} for name in annotators}
        yield f'\n], "annotators": {json.dumps(people, ensure_ascii=False)}}}\n'.encode()
