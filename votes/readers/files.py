"""Read numbered rows of files of any kind, plain or compressed, one at a time.

The name decides the kind, and the first bytes decide the compression. So a wrongly named file is reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Final

import pyarrow as pa

from core.errors import InputError
from votes.readers.csv_rows import CsvRows
from votes.readers.json_rows import JsonLinesRows, JsonRows
from votes.readers.parquet_rows import ParquetRows
from votes.readers.rows import FileHead, InputRow, ReadOptions, RowReader

if TYPE_CHECKING:
    from core.filesystems import InputFile

_PARQUET: Final = (".parquet", ".pq")
_READERS: Final[dict[tuple[str, ...], RowReader]] = {
    (".csv", ".tsv", ".tab"): CsvRows(),
    (".jsonl", ".ndjson"): JsonLinesRows(),
    (".json",): JsonRows(),
    _PARQUET: ParquetRows(),
}
_COMPRESSED: Final = ("", ".gz", ".zst", ".zstd")
ENDINGS: Final = tuple(name + packed for names in _READERS for name in names for packed in _COMPRESSED)

_GZIP, _ZSTD, _ZIP, _PARQUET_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1"
_NOT_TEXT: Final = {
    _ZIP: ("this is a zip archive", "unpack it and give the file inside."),
    _PARQUET_MAGIC: ("this is a Parquet file", "name it .parquet."),
    b"%PDF": ("this is a PDF", "give CSV, JSON Lines, JSON or Parquet."),
}


def read_head(file: InputFile, options: ReadOptions | None = None) -> FileHead:
    """Return the columns or keys of a file and its first rows. Raises InputError as `read_rows` does."""
    with _opened(file) as (reader, stream):
        return reader.head(file, stream, options or ReadOptions())


def read_rows(file: InputFile, options: ReadOptions | None = None) -> Iterator[tuple[int, InputRow]]:
    """Yield (row number from 1, row) of a file; a row that cannot be read comes as BrokenRow.

    Raises InputError for a file that is empty, truncated, or of another kind than its name.
    """
    with _opened(file) as (reader, stream):
        yield from reader.rows(file, stream, options or ReadOptions())


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[tuple[RowReader, IO[bytes]]]:
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
    reader = next((reader for endings, reader in _READERS.items() if name.endswith(endings)), None)
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
