"""Add a shape to convert votes to: one line of text for each pair, for reading.

    tiebreak convert --config configs/demo.yaml --plugin examples/custom_export.py --set data.train=votes.jsonl \\
        --set convert.to=lines --set convert.output=votes.txt
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.registry import EXPORTS
from votes.export import ExportedRecord, VoteExport, single_turn


@EXPORTS.register
class LinesExport(VoteExport):
    """Pairs of one turn; the others are counted and left out."""

    name = "lines"
    summary = "lines: winner, prompt, A and B"
    ending = ".txt"

    def rows(self, record: ExportedRecord) -> Iterable[Mapping[str, Any]]:
        """Return the line of a record. `single_turn` raises NotHeldError for several turns."""
        prompt, a, b = (" ".join(text.split()) for text in single_turn(record))
        yield {"line": f"[{record.winner}] {prompt} | {a} | {b}"}

    def encode(self, rows: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
        """Yield the lines."""
        for row in rows:
            yield f"{row['line']}\n".encode()
