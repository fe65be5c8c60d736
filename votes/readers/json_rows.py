"""Read JSON Lines, and JSON that is one list or one object.

JSON is read whole: JSON Lines is the format for many rows.
"""

from __future__ import annotations

import collections
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final

from core.errors import InputError
from votes.readers.encodings import open_text
from votes.readers.rows import BrokenRow, FileHead, InputRow, ReadOptions, head_of

if TYPE_CHECKING:
    from core.filesystems import InputFile

Hook = Callable[[Sequence[tuple[str, Any]]], dict[str, Any]]

# Keys of messages and of ranked answers: a list of these is part of one record, not a list of records.
_INSIDE: Final = frozenset({"role", "from", "rank"})
_UNDECODABLE: Final = re.compile("[\udc80-\udcff]")


class JsonLinesRows:
    """One object on each line."""

    def head(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> FileHead:
        """Return the keys and objects of the first lines."""
        return head_of(_refuse_repeated_keys(file, self._lines(file, stream, options, _keep_repeated_keys)))

    def rows(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> Iterator[tuple[int, InputRow]]:
        """Yield numbered rows."""
        return self._lines(file, stream, options)

    def _lines(
        self, file: InputFile, stream: IO[bytes], options: ReadOptions, hook: Hook | None = None
    ) -> Iterator[tuple[int, InputRow]]:
        text, sample = open_text(file, stream, options.encoding, newline="\n")
        if sample.lstrip("\ufeff \t\r\n").partition("\n")[0].strip() in ("[", "{") or sample.lstrip().startswith("[{"):
            raise InputError(
                "this is one JSON value, not an object on each line", where=file.name, fix="name the file .json."
            )
        return read_lines(file, text, hook)


class JsonRows:
    """A list of objects, one object, an object with one list of objects inside, or a table as pandas writes it."""

    def head(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> FileHead:
        """Return the keys and the first objects, and what surrounds the list."""
        rows, outer = self._objects(file, stream, options, _keep_repeated_keys)
        return head_of(_refuse_repeated_keys(file, enumerate(rows, start=1)), outer)

    def rows(self, file: InputFile, stream: IO[bytes], options: ReadOptions) -> Iterator[tuple[int, InputRow]]:
        """Yield numbered rows."""
        yield from enumerate(self._objects(file, stream, options)[0], start=1)

    def _objects(
        self, file: InputFile, stream: IO[bytes], options: ReadOptions, hook: Hook | None = None
    ) -> tuple[list[InputRow], Mapping[str, Any]]:
        """Return the rows, at least one of them an object, and what surrounds them."""
        text = open_text(file, stream, options.encoding)[0].read()
        try:
            value = json.loads(text, object_pairs_hook=hook)
        except (ValueError, RecursionError) as error:
            if "Extra data" in str(error):  # JSON Lines under another name
                return [row for _, row in read_lines(file, io.StringIO(text, newline="\n"), hook)], {}
            raise InputError(
                f"malformed JSON: {error}", where=file.name, fix="fix the JSON, or rename the file to .jsonl."
            ) from error
        outer: Mapping[str, Any] = {}
        if isinstance(value, dict):
            value, outer = unfold(value, file)
        rows = value if isinstance(value, list) else [value]
        if not rows:
            raise InputError("the file is empty", where=file.name, fix="give a file with rows.")
        if not any(isinstance(row, dict) for row in rows):
            raise InputError(
                "neither an object nor a list of objects", where=file.name, fix="give one object per record."
            )
        return [row if isinstance(row, dict) else BrokenRow("not an object", json.dumps(row)) for row in rows], outer


def read_lines(file: InputFile, lines: Iterator[str], hook: Hook | None = None) -> Iterator[tuple[int, InputRow]]:
    """Yield the numbered objects of lines."""
    number = 0
    for line in lines:
        if not line.strip():
            continue
        number += 1
        if _UNDECODABLE.search(line):
            yield number, BrokenRow("not UTF-8", json.dumps(line))
            continue
        try:
            row = json.loads(line, object_pairs_hook=hook)
        except (ValueError, RecursionError) as error:
            yield number, BrokenRow(f"malformed JSON: {_reason(error)}", line.rstrip("\n"))
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, BrokenRow("malformed JSON: the line is not an object", line.rstrip("\n"))
    if number == 0:
        raise InputError("the file is empty", where=file.name, fix="give a file with rows.")


def _reason(error: Exception) -> str:
    """Return what is wrong with a line. Its line number would be 1, not the file's."""
    return f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)


def _keep_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, marked if a key is there twice. Called for each object, so only heads are read with it."""
    values = dict(pairs)
    return values if len(values) == len(pairs) else _RepeatedKeys(values, [name for name, _ in pairs])


class _RepeatedKeys(dict[str, Any]):
    """An object that has a key more than once."""

    def __init__(self, values: dict[str, Any], names: Sequence[str]) -> None:
        super().__init__(values)
        self.repeated = [name for name, count in collections.Counter(names).items() if count > 1]


def _refuse_repeated_keys(file: InputFile, rows: Iterable[tuple[int, InputRow]]) -> Iterator[tuple[int, InputRow]]:
    for number, row in rows:
        if isinstance(row, _RepeatedKeys):
            raise InputError(
                f"row {number} has the key {row.repeated[0]!r} more than once",
                where=file.name,
                fix="give every value its own key.",
            )
        yield number, row


def unfold(value: dict[str, Any], file: InputFile) -> tuple[list[Any], Mapping[str, Any]]:
    """Return the rows of an object and what surrounds them.

    The object is a table as pandas writes it in one of its orientations, else it holds one list of objects.
    """
    if {"columns", "data"} <= value.keys() and isinstance(value["data"], list):  # orient="split"
        return _split_rows(value["columns"], value["data"], file), {}
    inner = list(value.values())
    if inner and all(isinstance(row, dict) and row.keys() == inner[0].keys() for row in inner):
        if all(name.isdigit() for name in value):  # orient="index"
            return inner, {}
        if len(inner) > 2:  # orient="columns"; two objects of the same keys are rather two parts of one record
            return [{name: column[row] for name, column in value.items()} for row in inner[0]], {}
    lists = [
        name
        for name, rows in value.items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    ]
    if len(lists) == 1 and "messages" not in lists and not any(_INSIDE & row.keys() for row in value[lists[0]]):
        return value[lists[0]], {name: rest for name, rest in value.items() if name != lists[0]}
    return [value], {}


def _split_rows(names: Sequence[Any], rows: Sequence[Any], file: InputFile) -> list[Any]:
    """Return the rows of a table that pandas has written with orient="split"."""
    repeated = [name for name, count in collections.Counter(map(str, names)).items() if count > 1]
    if repeated:
        raise InputError(
            f"the columns {', '.join(map(repr, repeated))} are there more than once",
            where=file.name,
            fix="give every column its own name.",
        )
    return [
        dict(zip(names, cells, strict=True)) if isinstance(cells, list) and len(cells) == len(names) else cells
        for cells in rows
    ]
