"""Truncate long records: choose their rounds, and the parts of long texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from core.settings.packing import Truncation

TokenIds = list[int]

# Named in packing.json: a model never scores records that were truncated in another way than its training records.
STRATEGIES: Final[dict[Truncation, str]] = {
    "right": "rounds-from-first, heads of texts, 20/40/40",
    "left": "rounds-from-last, tails of texts, 20/40/40",
    "middle": "rounds-from-both-ends, heads and tails of texts, 20/40/40",
    "first-2-last-2": "first-two-and-last-two-rounds, heads of texts, 20/40/40",
}


def round_order(rounds: int, truncation: Truncation) -> list[int]:
    """Return the numbers of the rounds in the order in which they are added while there is room.

    However many are added, the omitted rounds are consecutive, so one mark stands for all of them.
    """
    if truncation == "right":
        return list(range(rounds))
    if truncation == "left":
        return list(reversed(range(rounds)))
    both_ends = [n // 2 if n % 2 == 0 else rounds - 1 - n // 2 for n in range(rounds)]
    return both_ends if truncation == "middle" else both_ends[:4]


def text_windows(text: str, size: int, truncation: Truncation) -> list[str]:
    """Return the parts of a text that may be kept, each of at most `size` characters."""
    if len(text) <= size or (truncation == "middle" and len(text) <= 2 * size):
        return [text]
    if truncation == "left":
        return [text[-size:]]
    return [text[:size], text[-size:]] if truncation == "middle" else [text[:size]]


def truncate_ids(ids: TokenIds, most: int, mark: TokenIds, truncation: Truncation) -> TokenIds:
    """Return at most `most` of these ids. The mark stands where ids are omitted."""
    if len(ids) <= most:
        return ids
    room = most - len(mark)
    if truncation == "left":
        return mark + ids[len(ids) - room :]
    tail = room // 2 if truncation == "middle" else 0
    return ids[: room - tail] + mark + ids[len(ids) - tail :]


def split_budget(room: int, prompt: int, response_a: int, response_b: int) -> tuple[int, int, int]:
    """Split `room` tokens 20/40/40 over texts of these lengths. Tokens that one text leaves unused go to the others."""
    prompt = min(prompt, max(room // 5, room - response_a - response_b))
    answers = room - prompt
    half = answers // 2
    a = min(response_a, max(half, answers - response_b))
    b = min(response_b, max(half, answers - response_a))
    return prompt, a, b
