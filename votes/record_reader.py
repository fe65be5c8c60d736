"""Read input files as tables of validated records and of quarantined rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from votes.readers import BrokenRow, read_rows
from votes.schema import QUARANTINE, TEST_RECORDS, TRAIN_RECORDS
from votes.validation import InvalidRow, Record, TextFormat, to_record

if TYPE_CHECKING:
    from core.filesystems import InputFile

# Columns that one file gives. Position and fold depend on all files and are added later.
_TEXT_FIELDS = [TEST_RECORDS.field(name) for name in ("id", "prompt", "response_a", "response_b", "group")]
_VOTE_FIELDS = [TRAIN_RECORDS.field(name) for name in ("model_a", "model_b", "label")]
_ROW = pa.field("row", pa.int64())


def read_records(
    file: InputFile, labeled: bool, text_format: TextFormat, shard_rows: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield pairs (records, quarantined rows), each pair from at most `shard_rows` rows of the file.

    Records have the columns of votes.schema without position and fold. `row` is the data row in the file, from 1.
    Raises InputError for a file that cannot be read at all.
    """
    schema = pa.schema([*_TEXT_FIELDS, *(_VOTE_FIELDS if labeled else []), _ROW])
    records: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []

    def tables() -> tuple[pa.Table, pa.Table]:
        return pa.Table.from_pylist(records, schema), pa.Table.from_pylist(rejected, QUARANTINE)

    for number, row in read_rows(file):
        try:
            if isinstance(row, BrokenRow):
                raise InvalidRow(row.reason)
            records.append({**_fields(to_record(row, labeled, text_format)), "row": number})
        except InvalidRow as error:
            raw = row.raw if isinstance(row, BrokenRow) else json.dumps(row, default=str)
            record_id = "" if isinstance(row, BrokenRow) else str(row.get("id"))
            rejected.append(
                {
                    "split": "train" if labeled else "test",
                    "file": file.name,
                    "row": number,
                    "reason": str(error),
                    "id": record_id.encode("utf-8", "replace").decode(),
                    "raw": raw.encode("utf-8", "replace").decode(),
                }
            )
        if len(records) + len(rejected) == shard_rows:
            yield tables()
            records.clear()
            rejected.clear()
    if records or rejected:
        yield tables()


def _fields(record: Record) -> dict[str, Any]:
    return record.__dict__
