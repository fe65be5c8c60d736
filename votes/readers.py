"""Read numbered rows of CSV, JSON Lines, JSON and Parquet files, plain or compressed, one at a time.

The name decides the format, and the first bytes decide the compression. So a wrongly named file is reported. Python's
csv module reads CSV: it reports each broken row with number and reason. A columnar reader would reject the block or the
file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

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


InputRow = dict[str, Any] | BrokenRow


def read_header(file: InputFile) -> list[str] | None:
    """Return the names of a file's columns. JSON Lines and JSON have no header: return the first object's keys.

    Return None if no line of JSON Lines is an object: then all go to quarantine. JSON is read whole. Raises InputError
    as `read_rows` does.
    """
    with _opened(file) as (reader, stream):
        return reader.header(file, stream)


def read_rows(file: InputFile) -> Iterator[tuple[int, InputRow]]:
    """Yield (row number from 1, row) of a file; a row that cannot be read comes as BrokenRow.

    Raises InputError for a file that is empty, truncated, or of another format than its name.
    """
    with _opened(file) as (reader, stream):
        yield from reader.rows(file, stream)


class _Reader(Protocol):
    """Reads one kind of file from a decompressed stream."""

    def header(self, file: InputFile, stream: IO[bytes]) -> list[str] | None:
        """Return the names of the columns, or None if they cannot be known."""

    def rows(self, file: InputFile, stream: IO[bytes]) -> Iterator[tuple[int, InputRow]]:
        """Yield numbered rows."""


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[tuple[_Reader, IO[bytes]]]:
    """Yield the reader of a file's kind and its decompressed stream. Raises InputError as `read_rows` does."""
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
    readers: dict[tuple[str, ...], _Reader] = {
        _PARQUET: _ParquetReader(),
        _CSV: _CsvReader(),
        _JSONL: _JsonLinesReader(),
        _JSON: _JsonReader(),
    }
    reader = next((reader for endings, reader in readers.items() if name.endswith(endings)), None)
    if reader is None:
        raise InputError(
            "unknown kind of file", where=file.name, fix=f"the name must end in one of {', '.join(ENDINGS)}."
        )
    if not name.endswith(_PARQUET) and magic in _NOT_TEXT:
        reason, fix = _NOT_TEXT[magic]
        raise InputError(f"{reason}, not what its name says", where=file.name, fix=fix)
    try:
        # An uncompressed Parquet file is read from its end, so it needs a file that can seek.
        seekable = name.endswith(_PARQUET) and compression is None
        with (
            file.filesystem.open_input_file(file.path)
            if seekable
            else file.filesystem.open_input_stream(file.path, compression=compression)
        ) as stream:
            yield reader, stream
    except (OSError, EOFError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot be read: {error}", where=file.name, fix="write or fetch the file again.") from error


class _CsvReader:
    def header(self, file: InputFile, stream: IO[bytes]) -> list[str]:
        return self._open(file, stream)[2]

    def rows(self, file: InputFile, stream: IO[bytes]) -> Iterator[tuple[int, InputRow]]:
        lines, reader, header = self._open(file, stream)
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
                yield number, dict(zip(header, cells, strict=True))

    def _open(self, file: InputFile, stream: IO[bytes]) -> tuple[_Lines, Any, list[str]]:
        """Return the lines, a csv reader that has read the header, and the header."""
        csv.field_size_limit(_MAX_CELL)
        # surrogateescape keeps undecodable bytes visible, so that only their rows are rejected.
        lines = _Lines(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=""))
        reader = csv.reader(lines, strict=True)
        try:
            return lines, reader, next(reader)
        except StopIteration:
            raise InputError("the file is empty", where=file.name, fix="give a file with a header and rows.") from None
        except csv.Error as error:
            raise InputError(
                f"the header cannot be read: {error}", where=file.name, fix="fix the first line."
            ) from error


class _Lines:
    """The lines of a file, with those read since `kept` was last cleared: a broken row's raw text."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self.kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._text)
        self.kept.append(line)
        return line


class _JsonLinesReader:
    def header(self, file: InputFile, stream: IO[bytes]) -> list[str] | None:
        return next((list(row) for _, row in self.rows(file, stream) if isinstance(row, dict)), None)

    def rows(self, file: InputFile, stream: IO[bytes]) -> Iterator[tuple[int, InputRow]]:
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
            if isinstance(row, dict):
                yield number, row
            else:
                yield number, BrokenRow("malformed JSON: the line is not an object", line.rstrip("\n"))
        if number == 0:
            raise InputError("the file is empty", where=file.name, fix="give a file with rows.")


class _JsonReader:
    """One object, or a list of objects, which is read whole: JSON Lines is the format for many."""

    def header(self, file: InputFile, stream: IO[bytes]) -> list[str]:
        return list(next(row for row in self._objects(file, stream) if isinstance(row, dict)))

    def rows(self, file: InputFile, stream: IO[bytes]) -> Iterator[tuple[int, InputRow]]:
        for number, row in enumerate(self._objects(file, stream), start=1):
            yield number, row if isinstance(row, dict) else BrokenRow("not an object", json.dumps(row))

    def _objects(self, file: InputFile, stream: IO[bytes]) -> list[Any]:
        """Return the values of the list; at least one is an object."""
        try:
            value = json.loads(stream.read().decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"malformed JSON: {error}", where=file.name, fix="fix the JSON, or rename the file to .jsonl."
            ) from error
        rows = value if isinstance(value, list) else [value]
        if not rows:
            raise InputError("the file is empty", where=file.name, fix="give a file with rows.")
        if not any(isinstance(row, dict) for row in rows):
            raise InputError(
                "neither an object nor a list of objects", where=file.name, fix="give one object per record."
            )
        return rows


class _ParquetReader:
    def header(self, file: InputFile, stream: IO[bytes]) -> list[str]:
        names: list[str] = self._open(stream).schema_arrow.names
        return names

    def rows(self, file: InputFile, stream: IO[bytes]) -> Iterator[tuple[int, InputRow]]:
        number = 0
        for batch in self._open(stream).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row

    def _open(self, stream: Any) -> pq.ParquetFile:  # noqa: ANN401 - a file or stream of pyarrow
        # Parquet is read from its end, so a compressed stream is unpacked in memory first.
        return pq.ParquetFile(stream if stream.seekable() else pa.BufferReader(stream.read()))
