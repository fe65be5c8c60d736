"""Identify texts by digests: ids, and pairs of answers in either order."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_TURN_END, _TEXT_END = "\x1f", "\x1e"


def clean_turns(turns: Sequence[str | None]) -> list[str | None]:
    """Return turns with lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    return [clean_text(turn) for turn in turns]


def clean_text(text: str | None) -> str | None:
    """Return a text with lone surrogates as U+FFFD."""
    return None if text is None else _LONE_SURROGATE.sub("\ufffd", text)


def pair_digest(prompt: Sequence[str | None], a: Sequence[str | None], b: Sequence[str | None]) -> tuple[int, bool]:
    """Return a digest of a prompt and two answers in any order, and whether A is the second by their digests.

    The texts are clean turns.
    """
    of_a, of_b = _digest(prompt, a), _digest(prompt, b)
    first, second = sorted((of_a, of_b))
    return text_number(f"{first}{second}"), of_a != first


def text_number(text: str) -> int:
    """Return a stable 63-bit hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def _digest(prompt: Sequence[str | None], answer: Sequence[str | None]) -> str:
    text = _TEXT_END.join(
        _TURN_END.join("\0" if turn is None else turn for turn in turns) for turns in (prompt, answer)
    )
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
