"""Annotated pairs 2.0, the format of ICAI and Feedback Forensics."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.comparison import OUTCOMES
from votes.export import ExportedRecord, VoteExport, ballots_of, single_turn

_ANONYMOUS = "anonymous voter "


@EXPORTS.register
class AnnotatedPairsExport(VoteExport):
    """Records of one turn. Each voter is an annotator; so is each unknown voter of a record, marked as anonymous."""

    name = "annotated-pairs"
    summary = "annotated-pairs 2.0: comparisons with annotations"
    ending = ".json"

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the comparison of a record whose votes are for one outcome each."""
        prompt, a, b = single_turn(record)
        annotations: dict[str, dict[str, str]] = {}
        for ballot in ballots_of(record):
            name = ballot.voter or f"{_ANONYMOUS}1"
            for number in itertools.count(2):  # a voter may have several votes on a pair
                if name not in annotations:
                    break
                name = f"{ballot.voter} ({number})" if ballot.voter else f"{_ANONYMOUS}{number}"
            annotations[name] = {"pref": OUTCOMES[ballot.outcome]}
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
        people = {
            name: {"name": name, "type": "human"} | ({"anonymous": True} if name.startswith(_ANONYMOUS) else {})
            for name in annotators
        }
        yield f'\n], "annotators": {json.dumps(people, ensure_ascii=False)}}}\n'.encode()
