"""The random utility model behind the synthetic votes: a known truth that depends on the texts alone.

A voter who compares answers A and B perceives a utility u for each. Votes follow Davidson's model of paired
comparisons with ties (R. R. Davidson 1970, "On extending the Bradley-Terry model to accommodate ties in paired
comparison experiments", Journal of the American Statistical Association 65, 317-328). With worths w = exp(u):

    P(A)   = w_A / (w_A + w_B + nu sqrt(w_A w_B))
    P(B)   = w_B / (w_A + w_B + nu sqrt(w_A w_B))
    P(tie) = nu sqrt(w_A w_B) / (w_A + w_B + nu sqrt(w_A w_B))

which is the softmax of (u_A - u_B) / 2, (u_B - u_A) / 2 and ln nu. Ties are likelier the more the answers resemble
each other: ln nu = TIE + TIE_OVERLAP * J, where J is the Jaccard overlap of their vocabularies.

The utility of an answer is a sum of smooth, monotone effects of things a reader can see; `utility` gives it in full.
No effect belongs to a model or a position, so the probabilities are the best that anyone can predict from the texts,
and exchanging the answers exchanges P(A) and P(B).
"""

import math
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

LENGTH: Final = 4.0  # per e-fold of length, for short answers; halved at HALF_LENGTH
HALF_LENGTH: Final = 1200.0  # characters
LIST: Final = 1.2  # an answer with many list items, against one without
HEADER: Final = 0.6
CODE_WORDS: Final = 1.4  # a code block where the prompt asks for code
RICHNESS: Final = 1.0  # per unit of type-token ratio
REFUSAL: Final = 3.0  # many words of refusal or apology
HEDGE: Final = 0.6
HELPFUL: Final = 0.8
RELEVANCE: Final = 0.5  # all of the prompt's longer words taken up, against none
EMPTY_ANSWER: Final = -3.0  # on top of what an answer of no length loses
TIE: Final = 0.05
TIE_OVERLAP: Final = 0.8

# Devanagari vowel signs are no word characters to `re`; CJK is written without spaces, so each character counts.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff](?:[^\W\u3040-\u30ff\u3400-\u9fff]|[\u0900-\u0963])*"
)
_LIST_ITEM = re.compile(r"^ *(?:[-*•]|\d+\.) ", re.MULTILINE)
_HEADER = re.compile(r"^#{1,6} ", re.MULTILINE)
_ASKS_FOR_CODE = re.compile(r"\b(?:code|function|script|query|program|implement|regex)\b|```", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Return the lower-case words of a text in any script; each Chinese or Japanese character is one."""
    return _WORD.findall(text.lower())


REFUSAL_WORDS: Final = frozenset(
    words(
        """sorry apologize apologise cannot unable unfortunately refuse désolé malheureusement lamento lamentablemente
        leider entschuldigung извините сожалению λυπάμαι δυστυχώς عذرا क्षमा खेद 歉 憾"""
    )
)
HEDGE_WORDS: Final = frozenset(words("maybe perhaps possibly somehow probably guess unsure supposedly"))
HELPFUL_WORDS: Final = frozenset(
    words(
        """example specifically because measure concrete practical precisely tested step
        exemple ejemplo beispiel например παράδειγμα مثال उदाहरण 例"""
    )
)


class Observed(NamedTuple):
    """What a reader sees of one answer. Counts are of the whole answer, its turns joined."""

    characters: int
    words: int
    vocabulary: frozenset[str]
    list_items: int
    headers: int
    answers_with_code: bool  # it has a code block, and the prompt asks for code
    refusals: int
    hedges: int
    helpful: int
    relevance: float  # share of the prompt's words of four letters or more that the answer takes up, 0 to 1


def observe(prompt: Sequence[str | None], response: Sequence[str | None]) -> Observed:
    """Return what a reader sees of the answer `response` to `prompt`; a null turn reads as an empty one."""
    question = "\n\n".join(turn or "" for turn in prompt)
    answer = "\n\n".join(turn or "" for turn in response).strip()
    tokens = words(answer)
    vocabulary = frozenset(tokens)
    asked = {word for word in words(question) if len(word) >= 4}
    return Observed(
        characters=len(answer),
        words=len(tokens),
        vocabulary=vocabulary,
        list_items=len(_LIST_ITEM.findall(answer)),
        headers=len(_HEADER.findall(answer)),
        answers_with_code="```" in answer and _ASKS_FOR_CODE.search(question) is not None,
        refusals=_count(tokens, vocabulary, REFUSAL_WORDS),
        hedges=_count(tokens, vocabulary, HEDGE_WORDS),
        helpful=_count(tokens, vocabulary, HELPFUL_WORDS),
        relevance=len(asked & vocabulary) / len(asked) if asked else 0.0,
    )


def _count(tokens: list[str], vocabulary: frozenset[str], terms: frozenset[str]) -> int:
    """Count the occurrences of `terms` in `tokens`; most answers have few, so look at the vocabulary first."""
    return sum(tokens.count(word) for word in vocabulary & terms)


def utility(seen: Observed) -> float:
    """Return the answer's utility, on the scale of Davidson's log worth (its zero has no meaning).

    Length n counts as LENGTH ln((n + 20) / (n + HALF_LENGTH)): the logarithm of a short answer's length, saturating
    for long ones; 20 characters keep the empty answer finite. Counts c saturate as c / (c + half), where `half`
    is the count that earns half of the effect.
    """
    return (
        LENGTH * math.log((seen.characters + 20) / (seen.characters + HALF_LENGTH))
        + LIST * _saturate(seen.list_items, 2)
        + HEADER * _saturate(seen.headers, 1)
        + CODE_WORDS * seen.answers_with_code
        + RICHNESS * (len(seen.vocabulary) / seen.words if seen.words else 0.0)
        - REFUSAL * _saturate(seen.refusals, 1)
        - HEDGE * _saturate(seen.hedges, 2)
        + HELPFUL * _saturate(seen.helpful, 2)
        + RELEVANCE * seen.relevance
        + EMPTY_ANSWER * (seen.words == 0)
    )


def _saturate(count: int, half: float) -> float:
    return count / (count + half)


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the Jaccard overlap of two vocabularies, 0 to 1; two empty ones are equal."""
    return len(a & b) / len(a | b) if a or b else 1.0


def vote_probabilities(
    utility_a: npt.NDArray[np.float64], utility_b: npt.NDArray[np.float64], overlaps: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return Davidson's probabilities (n, 3) of A, B and tie from utilities (n,) and vocabulary overlaps (n,)."""
    half_gap = (utility_a - utility_b) / 2
    logits = np.stack([half_gap, -half_gap, TIE + TIE_OVERLAP * overlaps], axis=1)
    worths = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = worths / worths.sum(axis=1, keepdims=True)
    return shares
