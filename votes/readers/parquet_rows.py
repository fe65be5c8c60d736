"""Read Parquet, only the columns that are needed."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import InputError
from votes.readers.rows import HEAD_ROWS, FileHead, InputRow, ReadOptions

if TYPE_CHECKING:
    from core.filesystems import InputFile

_BATCH_ROWS = 1024


class ParquetRows:
    """Rows of a Parquet file."""

    def head(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> FileHead:
        """Return the columns with their types, and the first rows."""
        source = _open(stream)
        schema = source.schema_arrow
        batch = next(source.iter_batches(batch_size=HEAD_ROWS), None)
        repeated = [name for name, count in collections.Counter(schema.names).items() if count > 1]
        if repeated:
            raise InputError(
                f"the columns {', '.join(map(repr, repeated))} are there more than once",
                where=file.name,
                fix="give every column its own name.",
            )
        types = {field.name: str(field.type) for field in schema}
        return FileHead(frozenset(schema.names), [] if batch is None else _decoded(batch).to_pylist(), types=types)

    def rows(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> Iterator[tuple[int, InputRow]]:
        """Yield numbered rows."""
        source = _open(stream)
        names = source.schema_arrow.names
        columns = names if not options.columns else [name for name in names if name in options.columns]
        number = 0
        for batch in source.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for row in _decoded(batch).to_pylist():
                number += 1
                yield number, row


def _open(stream: Any) -> pq.ParquetFile:  # noqa: ANN401 - a file or stream of pyarrow
    # Parquet is read from its end, so a compressed stream is unpacked in memory first.
    return pq.ParquetFile(stream if stream.seekable() else pa.BufferReader(stream.read()))


def _decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with binary columns as texts where they are UTF-8."""
    columns: list[pa.Array] = []
    for column in batch.columns:
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            try:
                column = column.cast(pa.string())
                column.validate(full=True)
            except pa.ArrowInvalid:
                column = batch.column(len(columns))
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
