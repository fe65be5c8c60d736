"""Define what readers of files yield, and how a file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from core.filesystems import InputFile


class BrokenRow:
    """A row that cannot be read; it goes to quarantine with its reason."""

    def __init__(self, reason: str, raw: str) -> None:
        self.reason = reason
        self.raw = raw


InputRow = dict[str, Any] | BrokenRow


@dataclass(frozen=True)
class ReadOptions:
    """How files are read: the encoding of text, None to recognize it, and the columns to load, None for all."""

    encoding: str | None = None
    columns: frozenset[str] | None = None


@dataclass(frozen=True)
class FileHead:
    """What the beginning of a file shows: its columns or keys, and its first rows.

    `outer` holds what surrounds the rows in a JSON object. `types` holds the types of columns where the file has types.
    """

    names: frozenset[str]
    rows: Sequence[Mapping[str, Any]]
    outer: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)


class RowReader(Protocol):
    """Reads one kind of file from a decompressed stream."""

    def head(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> FileHead:
        """Return the columns and the first rows."""

    def rows(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> Iterator[tuple[int, InputRow]]:
        """Yield numbered rows."""


HEAD_ROWS = 50


def head_of(rows: Iterator[tuple[int, InputRow]], outer: Mapping[str, Any] | None = None) -> FileHead:
    """Return the head of a file whose rows have keys of their own."""
    first: list[Mapping[str, Any]] = []
    for _, row in rows:
        if isinstance(row, dict):
            first.append(row)
        if len(first) == HEAD_ROWS:
            break
    return FileHead(frozenset().union(*(row.keys() for row in first)), first, outer or {})
