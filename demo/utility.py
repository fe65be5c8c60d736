"""The random utility model behind the synthetic votes: a known truth that depends on the texts alone.

A voter who compares answers A and B perceives a utility u for each. Votes follow Davidson's model of paired
comparisons with ties (R. R. Davidson 1970, "On extending the Bradley-Terry model to accommodate ties in paired
comparison experiments", Journal of the American Statistical Association 65, 317-328). With worths w = exp(u):

    P(A)   = w_A / (w_A + w_B + nu sqrt(w_A w_B))
    P(B)   = w_B / (w_A + w_B + nu sqrt(w_A w_B))
    P(tie) = nu sqrt(w_A w_B) / (w_A + w_B + nu sqrt(w_A w_B))

which is the softmax of (u_A - u_B) / 2, (u_B - u_A) / 2 and ln nu. Similar answers tie more often: ln nu =
TIE_INTERCEPT + TIE_OVERLAP_SLOPE * J. J is the Jaccard overlap of their vocabularies.

The utility of an answer is a sum of smooth, monotone effects of visible traits; see `utility`. No effect depends on a
model or a position. So no prediction from the texts can be better, and swapping the answers swaps P(A) and P(B).
"""

import math
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

LENGTH_EFFECT: Final = 4.0  # per e-fold of length, for short answers; halved at HALF_SATURATION_LENGTH
HALF_SATURATION_LENGTH: Final = 1200.0  # characters
LIST_EFFECT: Final = 1.2  # an answer with many list items, against one without
HEADER_EFFECT: Final = 0.6
CODE_EFFECT: Final = 1.4  # a code block where the prompt asks for code
RICHNESS_EFFECT: Final = 1.0  # per unit of type-token ratio
REFUSAL_EFFECT: Final = 3.0  # many words of refusal or apology
HEDGE_EFFECT: Final = 0.6
HELPFUL_EFFECT: Final = 0.8
RELEVANCE_EFFECT: Final = 0.5  # all of the prompt's longer words repeated, against none
EMPTY_ANSWER_EFFECT: Final = -3.0  # on top of what an answer of no length loses
TIE_INTERCEPT: Final = 0.05
TIE_OVERLAP_SLOPE: Final = 0.8
BOTH_BAD_CENTER: Final = 2.0  # mean utility at which half of the ties are two bad answers
BOTH_BAD_SCALE: Final = 0.8

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


class AnswerTraits(NamedTuple):
    """The visible traits of one answer. Counts are of the whole answer, its turns joined."""

    characters: int
    words: int
    vocabulary: frozenset[str]
    list_items: int
    headers: int
    answers_with_code: bool  # it has a code block, and the prompt asks for code
    refusals: int
    hedges: int
    helpful: int
    relevance: float  # share of the prompt's words of four letters or more that the answer repeats, 0 to 1


def read_traits(prompt: Sequence[str | None], response: Sequence[str | None]) -> AnswerTraits:
    """Return the visible traits of the answer `response` to `prompt`. A null turn counts as an empty one."""
    question = "\n\n".join(turn or "" for turn in prompt)
    answer = "\n\n".join(turn or "" for turn in response).strip()
    tokens = words(answer)
    vocabulary = frozenset(tokens)
    asked = {word for word in words(question) if len(word) >= 4}
    return AnswerTraits(
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


def utility(seen: AnswerTraits) -> float:
    """Return the answer's utility, on the scale of Davidson's log worth (its zero has no meaning).

    Length n adds LENGTH_EFFECT ln((n + 20) / (n + HALF_SATURATION_LENGTH)). This is the logarithm of a short answer's
    length and saturates for long answers. The 20 characters keep an empty answer finite. Counts c saturate as
    c / (c + half), where `half` is the count that earns half of the effect.
    """
    return (
        LENGTH_EFFECT * math.log((seen.characters + 20) / (seen.characters + HALF_SATURATION_LENGTH))
        + LIST_EFFECT * _saturate(seen.list_items, 2)
        + HEADER_EFFECT * _saturate(seen.headers, 1)
        + CODE_EFFECT * seen.answers_with_code
        + RICHNESS_EFFECT * (len(seen.vocabulary) / seen.words if seen.words else 0.0)
        - REFUSAL_EFFECT * _saturate(seen.refusals, 1)
        - HEDGE_EFFECT * _saturate(seen.hedges, 2)
        + HELPFUL_EFFECT * _saturate(seen.helpful, 2)
        + RELEVANCE_EFFECT * seen.relevance
        + EMPTY_ANSWER_EFFECT * (seen.words == 0)
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
    logits = np.stack([half_gap, -half_gap, TIE_INTERCEPT + TIE_OVERLAP_SLOPE * overlaps], axis=1)
    worths = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = worths / worths.sum(axis=1, keepdims=True)
    return shares


def divide_ties(
    probabilities: npt.NDArray[np.float64], utilities: npt.NDArray[np.float64], classes: int
) -> npt.NDArray[np.float64]:
    """Return probabilities (n, k) of 2, 3 or 4 outcomes, from those of A, B and tie (n, 3) and the utilities (n, 2).

    Without ties a voter decides: A and B share the rest. With both bad, a tie is one of two bad answers the more often
    the less their mean utility is.
    """
    if classes == 2:
        decided: npt.NDArray[np.float64] = probabilities[:, :2] / probabilities[:, :2].sum(axis=1, keepdims=True)
        return decided
    if classes == 3:
        return probabilities
    bad = 1 / (1 + np.exp((utilities.mean(axis=1) - BOTH_BAD_CENTER) / BOTH_BAD_SCALE))
    tie = probabilities[:, 2]
    return np.column_stack([probabilities[:, :2], tie * (1 - bad), tie * bad])
