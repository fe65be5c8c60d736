"""Decode cells: lists and objects that a CSV file holds as text, in the dialects of JSON, Python and NumPy."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final

# A string literal of Python or NumPy, a null, or a separator. NumPy puts white space where others have a comma.
_TOKEN: Final = re.compile(
    r"""(?P<text>[bu]?'(?:[^'\\]|\\.)*'|[bu]?"(?:[^"\\]|\\.)*")|(?P<null>None|null|nan|NaN)|(?P<gap>[\s,]+)""",
    re.DOTALL,
)
# What NumPy writes around and between objects. Texts come first, so that nothing inside them is taken for it.
_OBJECTS: Final = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<apart>\}\s+\{)|(?P<array>\barray\()|(?P<dtype>,\s*dtype=\w+)""",
    re.DOTALL,
)
_MESSAGES: Final = re.compile(r"""\s*\[\s*\{\s*['"](?:role|from|content)['"]\s*:""")
_DIALECTS: Final = re.compile(r"\s*(?:array\()?\[\s*(?:[bu]?['\"]|None\b|null\b|nan\b|\])")


def decode_cell(cell: Any) -> Any:  # noqa: ANN401 - a cell of any format
    """Return the list or object that a text holds, or the cell itself if it holds none. No code is evaluated."""
    if not isinstance(cell, str):
        return cell
    start = cell.lstrip()[:1]
    if start not in ("[", "{", "a"):
        return cell
    if start != "a":
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass
    texts = read_list(cell)
    if texts is not None:
        return texts
    if start == "a" and not cell.lstrip().startswith("array("):
        return cell
    try:  # literals only: names, calls and operators are refused
        value = ast.literal_eval(_OBJECTS.sub(_without_numpy, cell.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return cell
    return value if isinstance(value, list | dict) else cell


def is_broken_messages(cell: Any) -> bool:  # noqa: ANN401 - a cell of any format
    """Return whether a text begins as a list of messages and does not parse, for example because it was cut off."""
    return isinstance(cell, str) and bool(_MESSAGES.match(cell)) and isinstance(decode_cell(cell), str)


def _without_numpy(token: re.Match[str]) -> str:
    if token["text"] is not None:
        return token["text"]
    return "}, {" if token["apart"] else "(" if token["array"] else ""


def read_list(cell: str) -> list[str | None] | None:
    """Return a list of texts and nulls written by `str` of a Python list or a NumPy array; None if it is none.

    `ast.literal_eval` would join the texts of a NumPy array, which have no commas between them.
    """
    if not _DIALECTS.match(cell):
        return None
    inner = cell.strip()
    if inner.startswith("array("):
        inner = re.sub(r",\s*dtype=[^)]*\)$|\)$", "", inner.removeprefix("array(")).strip()
    if not inner.endswith("]"):
        return None
    inner = inner[1:-1]
    texts: list[str | None] = []
    position, apart = 0, True
    while position < len(inner):
        token = _TOKEN.match(inner, position)
        if token is None:
            return None
        position = token.end()
        if token["gap"]:
            apart = True
            continue
        if not apart:  # two literals with nothing between them
            return None
        apart = False
        if token["null"]:
            texts.append(None)
            continue
        try:
            value = ast.literal_eval(token["text"])
        except (ValueError, SyntaxError):
            return None
        texts.append(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    return texts
