"""Validate a row: return its record, or raise the reason why it is invalid."""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import InputError
from votes.folds import prompt_group
from votes.schema import TEXTS, WINNERS

TextFormat = Literal["auto", "json", "plain"]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BROKEN_LIST = re.compile(r'\s*\[\s*(?:"|null\s*[,\]])')
_OPTIONAL = ("model_a", "model_b")
_TRUE, _FALSE = {"1", "1.0", "true", "True", "TRUE"}, {"0", "0.0", "false", "False", "FALSE"}


class InvalidRow(Exception):
    """A row is invalid for this reason. Both go to quarantine."""


@dataclass(frozen=True)
class Record:
    """One validated comparison; see votes.schema for the meaning of the fields."""

    id: str
    prompt: list[str | None]
    response_a: list[str | None]
    response_b: list[str | None]
    group: int
    model_a: str | None = None
    model_b: str | None = None
    label: int | None = None


def check_columns(names: Sequence[str], where: str, labeled: bool) -> None:
    """Raise InputError for missing columns: id and texts, and the votes if `labeled`."""
    required = ("id", *TEXTS, *WINNERS) if labeled else ("id", *TEXTS)
    missing = [name for name in required if name not in names]
    if not missing:
        return
    strangers = [str(name) for name in names if name not in (*required, *_OPTIONAL)]
    near = difflib.get_close_matches(missing[0], strangers, n=1, cutoff=0.8)
    act = f"rename {near[0]!r} to {missing[0]!r}" if near else f"the header must name {', '.join(required)}"
    columns = ", ".join(map(repr, names))[:300]
    plural = "s" if len(missing) > 1 else ""
    raise InputError(
        f"missing column{plural} {', '.join(missing)}", where=where, fix=f"{act}. The columns are {columns}"
    )


def to_record(row: dict[str, Any], labeled: bool, text_format: TextFormat) -> Record:
    """Return the record in a row. Raises InvalidRow with the reason if it is none.

    In `auto` format texts are JSON lists of turns if all nonempty texts of a row parse as lists. Otherwise they are
    plain texts of one turn. A text that starts like a list of strings but does not parse is broken. Lone surrogates,
    which no UTF-8 file can hold, become U+FFFD.
    """
    record_id = _identifier(row.get("id"))
    texts = _texts([row.get(name) for name in TEXTS], text_format)
    label = _label(row) if labeled else None
    model_a, model_b = (_model(row.get(name)) if labeled else None for name in ("model_a", "model_b"))
    prompt, response_a, response_b = texts
    return Record(record_id, prompt, response_a, response_b, prompt_group(prompt), model_a, model_b, label)


def _identifier(value: Any) -> str:  # noqa: ANN401 - a cell of any format
    if value is None or isinstance(value, list | dict) or str(value).strip() == "":
        raise InvalidRow("missing id")
    if isinstance(value, float):
        raise InvalidRow("id is a floating-point number, which cannot name a record exactly")
    return _clean(str(value))


def _texts(cells: Sequence[Any], text_format: TextFormat) -> list[list[str | None]]:
    for name, cell in zip(TEXTS, cells, strict=True):
        if cell is None:
            raise InvalidRow(f"missing {name}")
        if not isinstance(cell, str | list):
            raise InvalidRow(f"{name} is neither text nor a list of turns")
    parsed = [_turns(cell) if text_format != "plain" or isinstance(cell, list) else None for cell in cells]
    if text_format == "auto" and any(turns is not None for turns in parsed):
        # An answer may be empty where the other texts are lists.
        empty = [isinstance(cell, str) and not cell.strip() for cell in cells]
        parsed = [[""] if is_empty else turns for is_empty, turns in zip(empty, parsed, strict=True)]
    if all(turns is not None for turns in parsed):
        return [[None if turn is None else _clean(turn) for turn in turns or ()] for turns in parsed]
    for name, cell, turns in zip(TEXTS, cells, parsed, strict=True):
        broken = text_format == "json" or (text_format == "auto" and _BROKEN_LIST.match(str(cell)))
        if turns is None and (isinstance(cell, list) or broken):
            raise InvalidRow(f"{name} is not a JSON list of texts")
    return [
        [None if turn is None else _clean(turn) for turn in cell] if isinstance(cell, list) else [_clean(cell)]
        for cell in cells
    ]


def _turns(cell: str | list[Any]) -> list[str | None] | None:
    """Return the turns if the cell is a list of at least one text or null, else None."""
    if isinstance(cell, str):
        if not cell.lstrip().startswith("["):
            return None
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return None
    if isinstance(cell, list) and cell and all(turn is None or isinstance(turn, str) for turn in cell):
        return cell
    return None


def _label(row: dict[str, Any]) -> int:
    votes = []
    for name in WINNERS:
        value = str(row.get(name)).strip()
        if value not in _TRUE and value not in _FALSE:
            raise InvalidRow(f"{name} is neither 0 nor 1")
        votes.append(value in _TRUE)
    if sum(votes) != 1:
        raise InvalidRow("no winner" if not any(votes) else "more than one winner")
    return votes.index(True)


def _model(value: Any) -> str | None:  # noqa: ANN401 - a cell of any format
    return None if value is None or value == "" else _clean(str(value))


def _clean(text: str) -> str:
    return _LONE_SURROGATE.sub("\ufffd", text)
