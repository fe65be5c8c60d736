"""What of a record that is too long stays: which of its rounds, and which part of a text that is cut."""

from typing import Final, Literal, get_args

# `right` keeps the first rounds and the heads of texts, `left` the last rounds and the tails. `middle` keeps rounds of
# both ends, and head and tail of a text. `first-2-last-2` keeps the heads of texts of at most the first two and the
# last two rounds.
Truncation = Literal["right", "left", "middle", "first-2-last-2"]
TRUNCATIONS: Final = get_args(Truncation)
Ids = list[int]

# Named in packing.json: a model is never scored on records cut otherwise than those that it was trained on.
STRATEGIES: Final[dict[Truncation, str]] = {
    "right": "rounds-from-first, heads of texts, 20/40/40",
    "left": "rounds-from-last, tails of texts, 20/40/40",
    "middle": "rounds-from-both-ends, heads and tails of texts, 20/40/40",
    "first-2-last-2": "first-two-and-last-two-rounds, heads of texts, 20/40/40",
}


def admission(rounds: int, truncation: Truncation) -> list[int]:
    """Numbers of the rounds in the order in which they are let in while there is room.

    Whatever number of them is taken, the rounds left out follow on one another, so that one mark tells of them all.
    """
    if truncation == "right":
        return list(range(rounds))
    if truncation == "left":
        return list(reversed(range(rounds)))
    both_ends = [n // 2 if n % 2 == 0 else rounds - 1 - n // 2 for n in range(rounds)]
    return both_ends if truncation == "middle" else both_ends[:4]


def windows(text: str, size: int, truncation: Truncation) -> list[str]:
    """The parts of a text, each of at most `size` characters, from which what stays of it can be taken."""
    if len(text) <= size or (truncation == "middle" and len(text) <= 2 * size):
        return [text]
    if truncation == "left":
        return [text[-size:]]
    return [text[:size], text[-size:]] if truncation == "middle" else [text[:size]]


def shorten(ids: Ids, most: int, mark: Ids, truncation: Truncation) -> Ids:
    """At most `most` of these ids, the mark among them where some are left out."""
    if len(ids) <= most:
        return ids
    room = most - len(mark)
    if truncation == "left":
        return mark + ids[len(ids) - room :]
    tail = room // 2 if truncation == "middle" else 0
    return ids[: room - tail] + mark + ids[len(ids) - tail :]


def share(room: int, prompt: int, response_a: int, response_b: int) -> tuple[int, int, int]:
    """What each text may keep of `room` tokens, given the tokens it has: 20/40/40, unused shares passed on."""
    prompt = min(prompt, max(room // 5, room - response_a - response_b))
    answers = room - prompt
    half = answers // 2
    a = min(response_a, max(half, answers - response_b))
    b = min(response_b, max(half, answers - response_a))
    return prompt, a, b
