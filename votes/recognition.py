"""Recognize the format of files by their columns, and say what a file of no known format lacks."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.registry import FORMATS
from votes.comparison import InvalidRow
from votes.format import Reading, TextKind, VoteFormat
from votes.mapping import MappedFormat
from votes.readers.files import read_head
from votes.readers.rows import FileHead, ReadOptions
from votes.schema import TEXTS
from votes.texts import text_kind

if TYPE_CHECKING:
    from core.filesystems import InputFile
    from core.settings.data import Columns, Data

_COMMON = ("kaggle", "winner")  # named first where several formats are as near
_NOT_TEXT = ("int", "uint", "float", "double", "halffloat", "decimal", "bool", "date", "time")


@dataclass(frozen=True)
class VoteFile:
    """A file, its format by name, and how it is read: what travels to the tasks that read it."""

    file: InputFile
    format: str
    reading: Reading
    options: ReadOptions
    mapping: Columns | None = None
    decides_kind: bool = True  # whether the kind of texts is a guess from the first rows
    has_ids: bool = True  # whether the file has a column of ids, so that a row without one is invalid
    has_voters: bool = False  # whether the file has a column of voters, so that the same texts are one pair
    row_prefix: str = ""  # of a row's number where it names a pair to score: which of several files it is in

    @property
    def vote_format(self) -> VoteFormat:
        """The format itself."""
        return MappedFormat(self.mapping) if self.mapping is not None else FORMATS.get(self.format)


def recognize_file(file: InputFile, data: Data, labeled: bool) -> VoteFile:
    """Return a file with its format. Raises InputError if no format fits its columns, or several do."""
    options = ReadOptions(data.encoding)
    head = read_head(file, options)
    vote_format = _chosen(file, head, data, labeled)
    _refuse_numbers(file, head, vote_format)
    kind = data.text_format
    reading = Reading(
        labeled,
        file_kind(map(vote_format.cells, head.rows)) if kind == "auto" else "plain" if kind == "plain" else "lists",
        strict=kind == "json",
        pairs=data.pairs,
        outer={**head.outer, **_decided(file, head, vote_format)},
        weight_column=data.weight_column,
    )
    if labeled and data.weight_column is not None and data.weight_column not in head.names:
        raise InputError(
            f"no column {data.weight_column!r}, which data.weights names",
            where=file.name,
            fix=f"the columns are {_listed(head.names)}.",
        )
    columns = vote_format.columns
    if columns and data.weight_column is not None:
        columns |= {data.weight_column}
    return VoteFile(
        file,
        vote_format.name,
        reading,
        ReadOptions(data.encoding, columns or None),
        data.columns,
        decides_kind=kind == "auto" and vote_format.has_kinds,
        has_ids=vote_format.has_ids(head.names),
        has_voters=vote_format.has_voters(head.names),
    )


def _decided(file: InputFile, head: FileHead, vote_format: VoteFormat) -> Mapping[str, Any]:
    try:
        return vote_format.decide(head.rows)
    except InvalidRow as error:
        raise InputError(str(error), where=file.name, fix="leave in the file what is to be read.") from None


def file_kind(rows: Iterable[Sequence[Any]]) -> TextKind:
    """Return the kind of texts that most rows have, from the prompt and the answers of each."""
    return more_frequent_kind(collections.Counter(text_kind(cells) for cells in rows))


def more_frequent_kind(counts: Mapping[Any, int]) -> TextKind:
    """Return the kind of texts that more rows have."""
    return "lists" if counts.get("lists", 0) >= max(counts.get("plain", 0), 1) else "plain"


def _chosen(file: InputFile, head: FileHead, data: Data, labeled: bool) -> VoteFormat:
    if data.columns is not None:
        mapped = MappedFormat(data.columns)  # pairs to score may have other columns than the votes
        absent = mapped.needs(labeled) - head.names
        if absent and labeled:
            raise InputError(
                f"no column {', '.join(map(repr, sorted(absent)))}, which data.columns names",
                where=file.name,
                fix=f"the columns are {_listed(head.names)}.",
            )
        if not absent:
            return mapped
    if data.format is not None and (labeled or FORMATS.get(data.format).fits(head.names, head.rows, False)):
        vote_format: VoteFormat = FORMATS.get(data.format)
        missing = vote_format.needs(labeled) - head.names
        if missing:
            raise _missing(file, head, vote_format.name, missing)
        return vote_format
    fitting = [member for member in FORMATS if member.fits(head.names, head.rows, labeled)]
    # A format that needs more columns is the more special one.
    best = [member for member in fitting if not any(member.needs(labeled) < other.needs(labeled) for other in fitting)]
    if not labeled and all(member.texts == best[0].texts for member in best):  # they read the texts alike
        best = sorted(best, key=lambda member: (member.name not in _COMMON, member.name))[:1]
    if len(best) == 1:
        only: VoteFormat = best[0]
        return only
    if best:
        names = ", ".join(member.name for member in best)
        raise InputError(
            f"the columns fit several formats: {names}", where=file.name, fix="say which one with data.format."
        )
    raise _unknown(file, head, labeled)


def _unknown(file: InputFile, head: FileHead, labeled: bool) -> InputError:
    """Return the error for a file of no format: what the nearest one lacks, if it is near."""
    lacking = {
        member.name: member.needs(labeled) - head.names for member in FORMATS if not member.needs(labeled) <= head.names
    }
    folded = {name.strip().lower() for name in head.names}
    near = min(lacking, key=lambda name: (len(lacking[name] - folded), name not in _COMMON))
    missing, needed = lacking[near], FORMATS.get(near).needs(labeled)
    if 2 * len(missing - folded) < len(needed):
        return _missing(file, head, near, missing)
    return InputError(
        f"no format of {'votes' if labeled else 'pairs'} has these columns: {_listed(head.names)}",
        where=file.name,
        fix="name those of prompt, answers and winner with data.columns; docs/formats.md lists the formats.",
    )


def _missing(file: InputFile, head: FileHead, name: str, missing: frozenset[str]) -> InputError:
    """Return the error for columns that a format needs.

    No hint proposes which column to rename: where names of two answers are alike, it could exchange the sides.
    """
    plural = "s" if len(missing) > 1 else ""
    fix = "add what is missing, or name your columns with data.columns."
    folded = {given.strip().lower() for given in head.names}
    if missing <= folded:  # the same names in capitals: they cannot exchange the sides
        fix = "write their names in small letters, without spaces around them."
    return InputError(
        f"missing column{plural} {', '.join(sorted(missing))} of the format {name}",
        where=file.name,
        fix=f"{fix} The columns are {_listed(head.names)}.",
    )


def _refuse_numbers(file: InputFile, head: FileHead, vote_format: VoteFormat) -> None:
    for name in sorted(vote_format.texts & {*TEXTS} & head.types.keys()):
        if head.types[name].startswith(_NOT_TEXT):
            raise InputError(
                f"the column {name} holds {head.types[name]}, not texts",
                where=file.name,
                fix="write it as text, or name another column with data.columns.",
            )


def _listed(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))[:300]
