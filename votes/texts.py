"""Read the three texts of a row: plain texts, lists of turns in any dialect, or chat messages.

One answer of a plain-text file may start like a list. So the kind of a file's texts is decided for the whole file, and
`plain` texts stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from votes.cells import decode_cell, is_broken_messages
from votes.chat import Message, read_messages
from votes.comparison import Comparison, InvalidRow, TurnTexts
from votes.format import Reading, Row, TextKind, answer_messages, answered, compare, prompt_messages
from votes.schema import TEXTS

_BROKEN_LIST: Final = re.compile(r'\s*\[\s*(?:"|null\s*[,\]])')


def text_kind(cells: Sequence[Any]) -> TextKind | None:
    """Return the kind that prompt and answers of a row suggest, None if they are all empty.

    Lists of turns are taken for lists if all three are. Plain text may begin like a list. Messages, and answers that
    are lists of one text each, are rarely plain text, so the other texts of such a row may be plain.
    """
    if all(value is None or _is_blank(value) for value in cells):
        return None
    decoded = [decode_cell(value) for value in cells]
    prompt, *answers = decoded
    are_lists = all(value is None or _is_blank(value) or _is_list(value) for value in decoded)
    has_messages = read_messages(prompt) is not None or all(read_messages(answer) is not None for answer in answers)
    are_single = all(len(_turns(answer) or ()) == 1 for answer in answers)
    return "lists" if are_lists or has_messages or are_single else "plain"


def likely_kind(cells: Sequence[Any]) -> TextKind:
    """Return the kind that a row suggests by its first characters: cheap, for counting over a whole file."""
    filled = [value for value in cells if value]
    lists = [not isinstance(value, str) or value.lstrip()[:1] == "[" for value in filled]
    if all(lists):
        return "lists" if lists else "plain"
    return (text_kind(cells) or "plain") if any(lists) else "plain"


def read_texts(row: Row, reading: Reading) -> Comparison:
    """Return the comparison of the texts prompt, response_a and response_b, without votes.

    In a file of lists, a row of plain texts is an exception and stays plain, unless reading is strict.

    Raises InvalidRow for a missing text, and for a list that does not parse.
    """
    cells, kind = [row.get(name) for name in TEXTS], reading.kind
    for name, value in zip(TEXTS, cells, strict=True):
        if value is None:
            raise InvalidRow(f"missing {name}")
        if not isinstance(value, str | list | tuple):
            raise InvalidRow(f"{name} is neither text nor a list of turns")
    values = [value if kind == "plain" and isinstance(value, str) else decode_cell(value) for value in cells]
    for name, value in zip(TEXTS, values, strict=True):
        if kind == "lists" and isinstance(value, str) and (_BROKEN_LIST.match(value) or is_broken_messages(value)):
            raise InvalidRow(f"{name} is not a list of texts")
    if any(read_messages(value) is not None for value in values):  # the other texts may look like lists
        answers = [
            value if read_messages(value) is not None else cell for value, cell in zip(values, cells, strict=True)
        ]
        return _from_messages([values[0], *answers[1:]])
    lists = [_turns(value) for value in values]
    if not reading.strict and isinstance(values[0], str) and all(len(answer or ()) == 1 for answer in lists[1:]):
        return Comparison([values[0]], lists[1] or [], lists[2] or [])
    if any(turns is not None for turns in lists):
        # An answer may be empty where the other texts are lists.
        lists = [[""] if _is_blank(value) else turns for value, turns in zip(values, lists, strict=True)]
        others = {name: value for name, value, turns in zip(TEXTS, values, lists, strict=True) if turns is None}
        if others and not any(isinstance(value, str) for value in others.values()):
            raise InvalidRow(f"{', '.join(others)} is not a list of texts")
    if all(turns is not None for turns in lists):
        prompt, a, b = (turns or [] for turns in lists)
        return Comparison(prompt, a, b)
    for name, value, turns in zip(TEXTS, cells, lists, strict=True):
        if turns is None and (reading.strict or not isinstance(value, str)):
            raise InvalidRow(f"{name} is not a list of texts")
    plain: list[TurnTexts] = [[value] if isinstance(value, str) else list(value or ()) for value in cells]
    return Comparison(plain[0], plain[1], plain[2])


def _is_blank(value: Any) -> bool:  # noqa: ANN401 - a cell of any format
    return value == [] or (isinstance(value, str) and not value.strip())


def _is_list(value: Any) -> bool:  # noqa: ANN401 - a cell of any format
    return _turns(value) is not None or read_messages(value) is not None


def _turns(value: Any) -> TurnTexts | None:  # noqa: ANN401 - a cell of any format
    """Return the turns of a list of at least one text or null, else None."""
    if isinstance(value, list | tuple) and value and all(turn is None or isinstance(turn, str) for turn in value):
        return list(value)
    return None


def _from_messages(values: Sequence[Any]) -> Comparison:
    """Return the comparison where texts are chat messages.

    A prompt of user turns alone has one answer for each; a prompt with answers is a context that both answers end.
    """
    prompt = prompt_messages(values[0])
    a, b = (answer_messages(value) for value in values[1:])
    asks = sum(message.role == "user" for message in prompt)
    if asks > 1 and len(a) == len(b) == asks and all(message.role != "assistant" for message in prompt):
        # The turns of three columns side by side: each round is a question and its answer.
        merged = _join_systems(prompt)
        attachments = sum(message.attachments for message in (*prompt, *a, *b))
        sides = [[message.text for message in answer] for answer in (a, b)]
        return Comparison(merged, sides[0], sides[1], attachments=attachments)
    return compare(answered(prompt, a), answered(prompt, b))


def _join_systems(prompt: Sequence[Message]) -> TurnTexts:
    """Return the user turns, each with the system turns before it."""
    turns: TurnTexts = []
    systems: list[str] = []
    for message in prompt:
        if message.role == "system":
            systems.append(message.text or "")
        else:
            turns.append("\n\n".join([*systems, message.text or ""]) if systems else message.text)
            systems = []
    return turns
