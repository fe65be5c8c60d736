"""Format numbers for the page, and mark each with its place in metrics.json.

A number is an element with `data-key` and `data-form`. These are a JSON pointer (RFC 6901) into metrics.json, and the
Python format of its text. Digits that are no results (in names, texts, settings, versions) stand in an element with
`data-text` or in <pre>. The ticks of axes have the class "tick".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

Key = str | int
Keys = Key | Sequence[Key]

# Halves of surrogate pairs, control characters and other code points that are not HTML characters.
_NOT_TEXT = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def replace_invalid_characters(text: str) -> str:
    """Return the text with U+FFFD in place of code points that HTML cannot hold."""
    return _NOT_TEXT.sub("\ufffd", text)


def json_pointer(*keys: Key) -> str:
    """Return the JSON pointer of the value at keys and indexes."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def number_text(value: object, form: str) -> str:
    """Return a value as the page shows it: formatted, with a true minus sign."""
    return format(value, form).replace("-", "\u2212") if isinstance(value, int | float) else format(value, form)


def value_at(metrics: dict[str, Any], keys: Sequence[Key]) -> Any:  # noqa: ANN401 - JSON holds anything
    """Return the value at keys and indexes."""
    value: Any = metrics
    for key in keys:
        value = value[key]
    return value


def marked_number(metrics: dict[str, Any], form: str, *keys: Keys, tag: str = "span") -> Markup:
    """Return the marked number at `keys`, which may be keys or lists of keys; a dash for null."""
    path = [key for part in keys for key in ([part] if isinstance(part, Key) else part)]
    value = value_at(metrics, path)
    if value is None:
        return Markup("\u2013")
    return Markup('<{} data-key="{}" data-form="{}">{}</{}>').format(
        Markup(tag), json_pointer(*path), form, number_text(value, form), Markup(tag)
    )


def marked_interval(metrics: dict[str, Any], form: str, *keys: Keys, tag: str = "span") -> Markup:
    """Return the two marked ends of the interval at `keys`."""
    low, high = (marked_number(metrics, form, *keys, end, tag=tag) for end in (0, 1))
    return Markup("{} to {}").format(low, high)


def marked_name(text: str) -> Markup:
    """Return a name or other text of the run. It may show digits, and run right to left."""
    return Markup("<bdi data-text>{}</bdi>").format(text)


def marked_names(texts: Sequence[str]) -> Markup:
    """Return names as a list in words: "a, b and c"."""
    names = [marked_name(text) for text in texts]
    last = Markup(" and ").join(names[-2:])
    return Markup(", ").join([*names[:-2], last])
