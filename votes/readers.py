"""Rows of CSV, JSON Lines, JSON and Parquet files, plain or compressed, one at a time and with their numbers.

The format follows the file's name, the compression its first bytes, so that a wrongly named file is named as such.
CSV goes through Python's csv module rather than a columnar reader: it gives each broken row its own number and
reason, where a columnar reader rejects the block or the file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError

if TYPE_CHECKING:
    from core.filesystems import InputFile

_CSV, _JSONL, _JSON, _PARQUET = (".csv",), (".jsonl", ".ndjson"), (".json",), (".parquet", ".pq")
_COMPRESSED = ("", ".gz", ".zst", ".zstd")
ENDINGS: Final = tuple(name + packed for name in (*_CSV, *_JSONL, *_JSON, *_PARQUET) for packed in _COMPRESSED)

_GZIP, _ZSTD, _ZIP, _PARQUET_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1"
_NOT_TEXT = {
    _ZIP: ("this is a zip archive", "unpack it and give the file inside."),
    _PARQUET_MAGIC: ("this is a Parquet file", "name it .parquet."),
    b"%PDF": ("this is a PDF", "give CSV, JSON Lines, JSON or Parquet."),
}
_MAX_CELL = 2**31 - 1
_UNDECODABLE = re.compile("[\udc80-\udcff]")  # what errors="surrogateescape" makes of a byte that is not UTF-8


class BrokenRow:
    """A row that cannot be read; it goes to quarantine with its reason."""

    def __init__(self, reason: str, raw: str) -> None:
        self.reason = reason
        self.raw = raw


Row = dict[str, Any] | BrokenRow


class _EnoughError(Exception):
    """Nothing more has to be read."""


def check_file(file: InputFile, check_columns: Callable[[list[str]], None]) -> None:
    """Check a file's kind and columns without its rows, as far as the format allows (JSON is read whole).

    Raises InputError as `read_rows` does.
    """

    def check(names: list[str]) -> None:
        check_columns(names)
        raise _EnoughError

    with contextlib.suppress(_EnoughError):
        next(read_rows(file, check), None)


def read_rows(file: InputFile, check_columns: Callable[[list[str]], None]) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a file; rows that cannot be read come as BrokenRow.

    `check_columns` gets the column names before the first row and raises InputError for missing ones (JSON Lines and
    JSON have no header: there the first readable row's keys are checked). Raises InputError for a file that is empty,
    is not what its name says, or ends in the middle of its compression.
    """
    name = file.path.lower()
    for ending in _COMPRESSED[1:]:
        name = name.removesuffix(ending)
    if file.size == 0:
        raise InputError("the file is empty", where=file.name, fix="give a file with a header and rows.")
    with file.filesystem.open_input_stream(file.path, compression=None) as stream:
        magic = bytes(stream.read(4))
    for ending, start in ((".gz", _GZIP), (".zst", _ZSTD), (".zstd", _ZSTD)):
        if file.path.lower().endswith(ending) and not magic.startswith(start):
            raise InputError(
                f"the content is not {ending[1:]}, as its name says", file.name, "compress it, or rename it."
            )
    compression = "gzip" if magic.startswith(_GZIP) else "zstd" if magic == _ZSTD else None
    try:
        if name.endswith(_PARQUET):
            yield from _parquet(file, compression, check_columns)
        elif name.endswith((*_CSV, *_JSONL, *_JSON)):
            if magic in _NOT_TEXT:
                reason, fix = _NOT_TEXT[magic]
                raise InputError(f"{reason}, not what its name says", where=file.name, fix=fix)
            rows = _csv if name.endswith(_CSV) else _jsonl if name.endswith(_JSONL) else _json
            with file.filesystem.open_input_stream(file.path, compression=compression) as stream:
                yield from rows(file, stream, check_columns)
        else:
            raise InputError(
                "unknown kind of file", where=file.name, fix=f"the name must end in one of {', '.join(ENDINGS)}."
            )
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot be read: {error}", where=file.name, fix="make or fetch the file again.") from error


def _csv(file: InputFile, stream: IO[bytes], check_columns: Callable[[list[str]], None]) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(_MAX_CELL)
    # surrogateescape keeps undecodable bytes visible, so that only their rows are rejected.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader)
    except StopIteration:
        raise InputError("the file is empty", where=file.name, fix="give a file with a header and rows.") from None
    except csv.Error as error:
        raise InputError(f"the header cannot be read: {error}", where=file.name, fix="mend the first line.") from error
    check_columns(header)
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
                # Nobody can tell how many rows the open quote has swallowed, so none is dropped in silence.
                raise InputError(
                    f"a quote opened in or after line {before + 1} is never closed; {len(lines.kept)} lines hang on it",
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
            yield number, dict(zip(header, cells, strict=True))


class _Lines:
    """The lines of a file, remembering those read since `kept` was last cleared: a broken row's raw text."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self.kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.kept.append(line)
        return line


def _jsonl(file: InputFile, stream: IO[bytes], check_columns: Callable[[list[str]], None]) -> Iterator[tuple[int, Row]]:
    checked = False
    number = 0
    for line in io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n"):
        if not line.strip():
            continue
        number += 1
        if _UNDECODABLE.search(line):
            yield number, BrokenRow("not UTF-8", json.dumps(line))
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BrokenRow(f"malformed JSON: {error}", line.rstrip("\n"))
            continue
        if not isinstance(row, dict):
            yield number, BrokenRow("malformed JSON: the line is not an object", line.rstrip("\n"))
            continue
        if not checked:
            check_columns(list(row))
            checked = True
        yield number, row
    if number == 0:
        raise InputError("the file is empty", where=file.name, fix="give a file with rows.")


def _json(file: InputFile, stream: IO[bytes], check_columns: Callable[[list[str]], None]) -> Iterator[tuple[int, Row]]:
    """One object, or a list of objects, which is read whole: JSON Lines is the format for many."""
    try:
        found = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"malformed JSON: {error}", where=file.name, fix="mend it; JSON Lines go by .jsonl."
        ) from error
    rows = found if isinstance(found, list) else [found]
    if not rows:
        raise InputError("the file is empty", where=file.name, fix="give a file with rows.")
    first = next((row for row in rows if isinstance(row, dict)), None)
    if first is None:
        raise InputError("neither an object nor a list of objects", where=file.name, fix="give one object per record.")
    check_columns(list(first))
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, dict) else BrokenRow("not an object", json.dumps(row))


def _parquet(
    file: InputFile, compression: str | None, check_columns: Callable[[list[str]], None]
) -> Iterator[tuple[int, Row]]:
    if compression:
        # Parquet is read from its end, so a compressed one is unpacked in memory first.
        with file.filesystem.open_input_stream(file.path, compression=compression) as stream:
            source: Any = pa.BufferReader(stream.read())
    else:
        source = file.filesystem.open_input_file(file.path)
    with source:
        parquet = pq.ParquetFile(source)
        check_columns(parquet.schema_arrow.names)
        number = 0
        for batch in parquet.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
