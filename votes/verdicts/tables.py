"""Recognize tables of verdicts by their columns, and read their verdicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.filesystems import list_input_files
from core.registry import VERDICT_FORMATS
from core.settings.data import Data
from votes.comparison import InvalidRow
from votes.digests import clean_turns, pair_digest
from votes.format import mapped_outcome
from votes.mapping import lookup
from votes.readers.files import ENDINGS, read_head, read_rows
from votes.readers.rows import BrokenRow, FileHead, ReadOptions
from votes.recognition import VoteFile, recognize_file
from votes.verdicts.verdict import NumberedVerdict, Verdict, VerdictFormat

if TYPE_CHECKING:
    from core.filesystems import InputFile
    from core.settings.judges import JudgeTable, VerdictColumns
    from votes.format import Row

_LONG_TABLE = "long_table"


@dataclass(frozen=True)
class VerdictFile:
    """A file of verdicts and its format by name; `votes` is set where the format is one of votes with voters."""

    file: InputFile
    format: str
    options: ReadOptions
    outer: Mapping[str, Any]
    mapping: VerdictColumns | None = None
    votes: VoteFile | None = None

    @property
    def has_texts(self) -> bool:
        """Whether verdicts join by the texts of their rows."""
        return self.votes is not None or VERDICT_FORMATS.get(self.format).has_texts

    def verdicts(self) -> Iterator[NumberedVerdict]:
        """Yield each verdict with its row's number from 1, or the reason why a row has none."""
        broken: list[NumberedVerdict] = []

        def numbered() -> Iterator[tuple[int, Row]]:
            for number, row in read_rows(self.file, self.options):
                if isinstance(row, BrokenRow):
                    broken.append((number, InvalidRow(row.reason)))
                else:
                    yield number, row

        yield from self._read(numbered())
        yield from broken

    def raw_rows(self, numbers: Container[int]) -> dict[int, str]:
        """Return some rows as JSON, or as they are in the file where they cannot be read, by number."""
        return {
            number: row.raw if isinstance(row, BrokenRow) else json.dumps(row, default=str)
            for number, row in read_rows(self.file, self.options)
            if number in numbers
        }

    def _read(self, rows: Iterator[tuple[int, Row]]) -> Iterator[NumberedVerdict]:
        if self.votes is not None:
            return _verdicts_of_votes(rows, self.votes)
        if self.mapping is not None:
            paths, outcomes = self.mapping.paths(), {} if self.mapping.verdict is None else self.mapping.verdict.map
            return self._read_mapped(rows, paths, outcomes)
        vote_format: VerdictFormat = VERDICT_FORMATS.get(self.format)
        return vote_format.read(rows, self.outer)

    def _read_mapped(
        self, rows: Iterator[tuple[int, Row]], paths: Mapping[str, Sequence[str | int]], outcomes: Mapping[str, Any]
    ) -> Iterator[NumberedVerdict]:
        refused: list[NumberedVerdict] = []

        def mapped() -> Iterator[tuple[int, Row]]:
            for number, row in rows:
                try:
                    yield number, _mapped(row, paths, outcomes)
                except InvalidRow as error:
                    refused.append((number, error))

        yield from VERDICT_FORMATS.get(self.format).read(mapped(), self.outer)
        yield from refused


def find_verdict_files(table: JudgeTable, data: Data) -> list[VerdictFile]:
    """Return the files of a table with their formats. Raises InputError for an unknown format."""
    return [_recognize(file, table, data) for file in list_input_files(table.path, ENDINGS)]


def _recognize(file: InputFile, table: JudgeTable, data: Data) -> VerdictFile:
    options = ReadOptions(data.encoding)
    head = read_head(file, options)
    if table.columns is not None:
        absent = {str(path[0]) for path in table.columns.paths().values()} - head.names
        if absent:
            raise InputError(
                f"no column {', '.join(map(repr, sorted(absent)))}, which judges.columns names",
                where=file.name,
                fix=f"the columns are {_listed(head.names)}.",
            )
        return VerdictFile(file, _LONG_TABLE, options, head.outer, table.columns)
    if table.format is not None:
        return VerdictFile(file, table.format, options, head.outer)
    fitting = [member.name for member in VERDICT_FORMATS if member.fits(head.names, head.rows)]
    if len(fitting) == 1:
        return VerdictFile(file, fitting[0], options, head.outer)
    if fitting:
        raise InputError(
            f"the columns fit several formats: {', '.join(fitting)}", file.name, "say which one with judges.format."
        )
    return _recognize_votes(file, head, data, options)


def _recognize_votes(file: InputFile, head: FileHead, data: Data, options: ReadOptions) -> VerdictFile:
    """Return a file that has the format of votes, with judges for voters. Raises InputError if it has none."""
    try:
        votes = recognize_file(file, Data(encoding=data.encoding, pairs=data.pairs), labeled=True)
    except InputError as error:
        raise InputError(
            f"no format of verdicts has these columns: {_listed(head.names)}",
            where=file.name,
            fix="name those of id and verdict with judges.columns; docs/formats.md lists the formats.",
        ) from error
    reading = dataclasses.replace(votes.reading, judges=True)
    return VerdictFile(file, votes.format, options, head.outer, votes=dataclasses.replace(votes, reading=reading))


def _verdicts_of_votes(rows: Iterator[tuple[int, Row]], file: VoteFile) -> Iterator[NumberedVerdict]:
    """Yield the votes of rows as verdicts, which join by their texts."""
    for number, row in rows:
        try:
            comparisons = list(file.vote_format.comparisons(row, file.reading))
        except InvalidRow as error:
            yield number, InvalidRow(str(error).replace("winner", "verdict"))
            continue
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            yield number, InvalidRow(f"the row is not as the format {file.format} has it: {error!r}")
            continue
        for comparison in comparisons:
            texts = (comparison.prompt, comparison.response_a, comparison.response_b)
            digest, exchanged = pair_digest(*map(clean_turns, texts))
            for vote in comparison.votes:
                yield (
                    number,
                    Verdict(
                        vote.voter,
                        vote.shares,
                        id=comparison.id or comparison.pair,
                        digest=digest,
                        exchanged=exchanged,
                        model_a=comparison.model_a,
                        model_b=comparison.model_b,
                    ),
                )


def _mapped(row: Row, paths: Mapping[str, Sequence[str | int]], outcomes: Mapping[str, Any]) -> Row:
    """Return a row under our own names, with the verdict as the settings' map has it."""
    values = {name: lookup(row, tuple(path)) for name, path in paths.items()}
    if outcomes and values.get("verdict") not in (None, ""):
        outcome = mapped_outcome(values["verdict"], outcomes)
        if outcome is None:
            known = ", ".join(map(str, outcomes))
            raise InvalidRow(f"the verdict is {str(values['verdict'])[:40]!r}, not one of {known}")
        values["verdict"] = outcome
    return values


def _listed(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))[:300]
