"""Numbers on the report's page, each marked with where it stands in metrics.json.

A number is an element with `data-key`, a JSON pointer (RFC 6901) into metrics.json, and `data-form`, the Python format
that made its text. What shows digits but is no result (names, texts, settings, versions) stands in an element with
`data-text` or in <pre>; the ticks of axes have the class "tick".
"""

import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

Key = str | int
Keys = Key | Sequence[Key]

# Halves of surrogate pairs and control characters, which are no characters of HTML.
_NOT_TEXT = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def clean(text: str) -> str:
    """Text with U+FFFD for what no HTML page can hold."""
    return _NOT_TEXT.sub("\ufffd", text)


def pointer(*keys: Key) -> str:
    """The JSON pointer of a value by the keys and indexes that lead to it."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def text_of(value: object, form: str) -> str:
    """A value as the page shows it: formatted, with a true minus sign."""
    return format(value, form).replace("-", "\u2212") if isinstance(value, int | float) else format(value, form)


def at(metrics: dict[str, Any], keys: Sequence[Key]) -> Any:  # noqa: ANN401 - JSON holds anything
    """The value that keys and indexes lead to."""
    value: Any = metrics
    for key in keys:
        value = value[key]
    return value


def number(metrics: dict[str, Any], form: str, *keys: Keys, tag: str = "span") -> Markup:
    """The marked number at `keys`, some of which may be in lists; a dash where there is none (null)."""
    way = [each for some in keys for each in ([some] if isinstance(some, Key) else some)]
    value = at(metrics, way)
    if value is None:
        return Markup("\u2013")
    return Markup('<{} data-key="{}" data-form="{}">{}</{}>').format(
        Markup(tag), pointer(*way), form, text_of(value, form), Markup(tag)
    )


def interval(metrics: dict[str, Any], form: str, *keys: Keys, tag: str = "span") -> Markup:
    """The two marked ends of the interval at `keys`."""
    low, high = (number(metrics, form, *keys, end, tag=tag) for end in (0, 1))
    return Markup("{} to {}").format(low, high)


def name(text: str) -> Markup:
    """A name or other text of the run, which may show digits and run right to left."""
    return Markup("<bdi data-text>{}</bdi>").format(text)
