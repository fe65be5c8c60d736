"""Read input files as tables of validated rows and of quarantined ones."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from votes.comparison import OUTCOMES, Comparison, InvalidRow
from votes.digests import clean_text, clean_turns, pair_digest, text_number
from votes.folds import prompt_group
from votes.readers.files import read_rows
from votes.readers.rows import BrokenRow
from votes.schema import QUARANTINE, TEST_RECORDS
from votes.texts import likely_kind

if TYPE_CHECKING:
    from votes.format import VoteFormat
    from votes.recognition import VoteFile

# Columns that one file gives. Position and fold depend on all files and are added later.
_TEXT_FIELDS = [field for field in TEST_RECORDS if field.name != "position"]
_VOTE_FIELDS = [
    pa.field("key", pa.int64()),  # rows of one pair share it
    pa.field("digest", pa.int64()),  # of the texts, whichever answer is first
    pa.field("exchanged", pa.bool_()),  # whether A is the second of the answers in the order of their digests
    pa.field("shares", pa.list_(pa.list_(pa.float64(), len(OUTCOMES)))),  # of each vote, by OUTCOMES, times its weight
    pa.field("voters", pa.list_(pa.string())),
    pa.field("times", pa.list_(pa.string())),
]
_ROW_FIELDS = [pa.field("id_key", pa.int64()), pa.field("row", pa.int64()), pa.field("attachments", pa.int32())]


@dataclasses.dataclass(frozen=True)
class ReadPart:
    """What some rows of a file give: records, quarantined rows, and the number of rows with each kind of texts."""

    records: pa.Table
    rejected: pa.Table
    kinds: Mapping[str, int]


def read_records(file: VoteFile, shard_rows: int) -> Iterator[ReadPart]:
    """Yield the records of a file in parts of about `shard_rows` rows.

    `row` is the data row in the file, from 1. A row of a ranked list gives several records.

    Raises InputError for a file that cannot be read at all.
    """
    labeled, vote_format = file.reading.labeled, file.vote_format
    schema = pa.schema([*_TEXT_FIELDS, *(_VOTE_FIELDS if labeled else []), *_ROW_FIELDS])
    records: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []

    kinds: collections.Counter[str] = collections.Counter()

    def part() -> ReadPart:
        tables = pa.Table.from_pylist(records, schema), pa.Table.from_pylist(rejected, QUARANTINE)
        return ReadPart(*tables, dict(kinds))

    for number, row in read_rows(file.file, file.options):
        try:
            if isinstance(row, BrokenRow):
                raise InvalidRow(row.reason)
            if vote_format.has_kinds:
                kinds[likely_kind(vote_format.cells(row))] += 1
            comparisons = _comparisons(file, vote_format, row)
            of_row = f"{file.row_prefix}{number}"
            names = [of_row] if len(comparisons) == 1 else [f"{of_row}-{n + 1}" for n in range(len(comparisons))]
            read = [
                _fields(comparison, file, vote_format.ranked, name)
                for comparison, name in zip(comparisons, names, strict=True)
            ]
            records += [{**fields, "row": number} for fields in read]
        except InvalidRow as error:
            rejected.append(_rejected(file, number, row, str(error)))
        if len(records) + len(rejected) >= shard_rows:
            yield part()
            records.clear()
            rejected.clear()
            kinds.clear()
    if records or rejected:
        yield part()


def _comparisons(file: VoteFile, vote_format: VoteFormat, row: Any) -> list[Comparison]:  # noqa: ANN401 - a row
    """Return the comparisons of a row. Raises InvalidRow, also where the row has other types than its format."""
    try:
        return list(vote_format.comparisons(row, file.reading))
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InvalidRow(f"the row is not as the format {vote_format.name} has it: {error!r}") from error


def _fields(comparison: Comparison, file: VoteFile, ranked: bool, name: str) -> dict[str, Any]:
    """Return the columns of one comparison; of a ranked one, with sides drawn by a digest of the texts.

    A record without an id is named by its texts if it has votes, else by `name`: its row.
    """
    prompt, a, b = (clean_turns(turns) for turns in (comparison.prompt, comparison.response_a, comparison.response_b))
    if comparison.id is None and comparison.pair is None and file.has_ids:
        raise InvalidRow("missing id")
    votes: dict[str, Any] = {}
    if file.reading.labeled:
        digest, exchanged = pair_digest(prompt, a, b)
        if ranked and exchanged != bool(digest & 1):
            a, b, exchanged = b, a, not exchanged
            comparison = comparison.exchanged()
        key = comparison.pair or (None if file.has_voters else comparison.id)
        votes = {"key": digest if key is None else text_number(key), "digest": digest, "exchanged": exchanged}
        votes |= _vote_fields(comparison)
        record_id = comparison.pair or comparison.id or f"{digest:016x}"
    else:
        record_id = comparison.id or name
    record_id = clean_text(record_id) or ""
    return {
        "id": record_id,
        "id_key": text_number(record_id),
        "prompt": prompt,
        "response_a": a,
        "response_b": b,
        "language": clean_text(comparison.language),
        "group": prompt_group(comparison.group or prompt),
        "model_a": clean_text(comparison.model_a),
        "model_b": clean_text(comparison.model_b),
        "attachments": comparison.attachments,
        **votes,
    }


def _vote_fields(comparison: Comparison) -> dict[str, Any]:
    """Return the columns of a comparison's votes."""
    return {
        "shares": [[vote.weight * vote.shares.get(outcome, 0.0) for outcome in OUTCOMES] for vote in comparison.votes],
        "voters": [clean_text(vote.voter) for vote in comparison.votes],
        "times": [clean_text(vote.time) for vote in comparison.votes],
    }


def _rejected(file: VoteFile, number: int, row: Any, reason: str) -> dict[str, Any]:  # noqa: ANN401 - a row of any kind
    broken = isinstance(row, BrokenRow)
    names = file.vote_format.ids
    record_id = "" if broken else str(next((row[name] for name in names if name in row), None))
    raw = row.raw if broken else json.dumps(row, default=str)
    return {
        "split": "train" if file.reading.labeled else "test",
        "file": file.file.name,
        "row": number,
        "reason": reason,
        "id": record_id.encode("utf-8", "replace").decode(),
        "raw": raw.encode("utf-8", "replace").decode(),
    }
