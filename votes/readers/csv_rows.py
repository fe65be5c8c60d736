"""Read CSV with Python's csv module, which reports each broken row with number and reason."""

from __future__ import annotations

import collections
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Final

from core.errors import InputError
from votes.readers.encodings import open_text
from votes.readers.rows import BrokenRow, FileHead, InputRow, ReadOptions, head_of

if TYPE_CHECKING:
    from core.filesystems import InputFile

_MAX_CELL: Final = 2**31 - 1
_UNDECODABLE: Final = re.compile("[\udc80-\udcff]")  # what errors="surrogateescape" makes of other bytes
_DELIMITER_LINE: Final = re.compile("\ufeff?sep=(.)\r?\n")
_DELIMITERS: Final = (",", ";", "\t", "|")
# How quotes inside quotes are written: doubled, as RFC 4180 says, or with a backslash, as Spark does.
_QUOTINGS: Final[tuple[dict[str, Any], ...]] = ({"doublequote": True}, {"doublequote": False, "escapechar": "\\"})
_BACKSLASH: Final = re.compile(r'\\(["\\])|\\')


class CsvRows:
    """Rows of a CSV file. The header decides the delimiter, the first rows decide how quotes are escaped."""

    def head(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> FileHead:
        """Return the columns and the first rows."""
        lines, reader, header = self._open(file, stream, options)
        head = head_of(self._rows(file, lines, reader, header))
        return FileHead(frozenset(filter(None, header)), head.rows)

    def rows(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> Iterator[tuple[int, InputRow]]:
        """Yield numbered rows."""
        return self._rows(file, *self._open(file, stream, options))

    def _rows(self, file: InputFile, lines: _Lines, reader: Any, header: list[str]) -> Iterator[tuple[int, InputRow]]:  # noqa: ANN401
        number = 0
        while True:
            lines.kept.clear()
            before = reader.line_num
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                if "unexpected end" in str(error) and len(lines.kept) > 1:
                    # The open quote may have swallowed any number of rows, so none is dropped silently.
                    raise InputError(
                        f"a quote opened in or after line {before + 1} is never closed; it spans {len(lines.kept)} "
                        "lines",
                        where=file.name,
                        fix="close the quote, or double it where it is part of the text.",
                    ) from error
                yield number, BrokenRow(f"malformed CSV near line {before + 1}: {error}", "".join(lines.kept))
                continue
            if not cells:  # a blank line
                continue
            number += 1
            if len(cells) != len(header):
                yield number, BrokenRow(f"{len(cells)} cells where the header has {len(header)}", json.dumps(cells))
            elif any(_UNDECODABLE.search(cell) for cell in cells):
                yield number, BrokenRow("not UTF-8", json.dumps(cells))
            else:
                yield number, {name: value for name, value in zip(header, cells, strict=True) if name}

    def _open(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> tuple[_Lines, Any, list[str]]:
        """Return the lines, a csv reader that has read the header, and the header."""
        csv.field_size_limit(_MAX_CELL)
        text, sample = open_text(file, stream, options.encoding)
        lines = _Lines(text)
        named = _DELIMITER_LINE.match(sample)
        if named:  # Excel's own first line, which names the delimiter
            next(lines)
        dialect = _dialect(sample[named.end() :], named[1]) if named else _dialect(sample)
        lines.escaped = "escapechar" in dialect
        reader = csv.reader(lines, strict=True, **dialect)
        try:
            header = next(reader)
        except StopIteration:
            raise InputError("the file is empty", where=file.name, fix="give a file with a header and rows.") from None
        except csv.Error as error:
            raise InputError(
                f"the header cannot be read: {error}", where=file.name, fix="fix the first line."
            ) from error
        header = [name.strip("\ufeff") for name in header]
        repeated = [name for name, count in collections.Counter(header).items() if count > 1 and name]
        if repeated:
            raise InputError(
                f"the header names {', '.join(map(repr, repeated))} more than once",
                where=file.name,
                fix="give every column its own name.",
            )
        return lines, reader, header


class _Lines:
    """The lines of a file, with those read since `kept` was last cleared: a broken row's raw text."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self.kept: list[str] = []
        self.escaped = False  # whether a backslash escapes quotes

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.kept.append(line)
        # Spark escapes quotes alone. The csv module would drop the backslashes of everything else, such as LaTeX.
        return _BACKSLASH.sub(lambda match: match[0] if match[1] else "\\\\", line) if self.escaped else line


def _dialect(sample: str, delimiter: str | None = None) -> dict[str, Any]:
    """Return the delimiter and the escape of quotes of a file."""
    header = sample.lstrip("\ufeff").partition("\n")[0]
    delimiter = delimiter or max(_DELIMITERS, key=lambda candidate: len(_first_row(header, candidate)))
    quoting = _QUOTINGS[0]
    if '\\"' in sample:
        quoting = min(_QUOTINGS, key=lambda candidate: _bad_rows(sample, delimiter, candidate))
    return {"delimiter": delimiter, **quoting}


def _first_row(header: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return []


def _bad_rows(sample: str, delimiter: str, quoting: dict[str, Any]) -> int:
    """Return the number of rows of a sample that are broken or have other cells than the header."""
    reader = csv.reader(io.StringIO(sample, newline=""), strict=True, delimiter=delimiter, **quoting)
    bad, cells = 0, 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return bad
        except csv.Error:
            bad += 1
            continue
        cells = cells or len(row)
        bad += bool(row) and len(row) != cells
