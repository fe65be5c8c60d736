"""Overlap: what an answer repeats of its prompt, and what the two answers have in common."""

from __future__ import annotations

from collections.abc import KeysView, Sequence, Set
from typing import TYPE_CHECKING, Any

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

# Words looked at: the longest common subsequence takes time by the product of the lengths.
_WORDS = 3000

_ANSWER_FEATURES = (
    Feature("prompt_words_kept", "share", "distinct words of the prompt that the answer uses"),
    Feature("words_from_prompt", "share", "distinct words of the answer that stand in the prompt"),
    Feature("prompt_bigrams_kept", "share", "distinct word pairs of the prompt that the answer uses"),
    Feature("prompt_lcs", "share", f"longest common subsequence of words per word of the prompt, first {_WORDS} words"),
    Feature("starts_like_prompt", "words", "words at the start that both have in common"),
    Feature("repeated_bigrams", "share", "word pairs of the answer that stood there before"),
    Feature("repeated_lines", "share", "lines of the answer that stood there before"),
)
_PAIR_FEATURES = (
    Feature("jaccard", "share", "distinct words that both answers use, per word that either uses (Jaccard 1901)"),
    Feature("bigram_jaccard", "share", "the same of word pairs"),
    Feature("lcs", "share", f"longest common subsequence of words per word of the longer answer, first {_WORDS} words"),
    Feature("common_start", "words", "words at the start that both answers have in common"),
    Feature("identical", "0 or 1", "1 if both answers are the same text"),
    Feature("both_empty", "0 or 1", "1 if neither answer has any text"),
    Feature("one_empty", "0 or 1", "1 if exactly one answer has no text"),
)


@FAMILIES.register
class OverlapFamily(TextFamily):
    """Overlap: what an answer repeats of its prompt, and what the two answers have in common."""

    name = "overlap"
    summary = "words, word pairs and longest common subsequences shared with the prompt and between answers"
    version = 2
    position = 8
    libraries = ("rapidfuzz",)
    answer_features = _ANSWER_FEATURES
    pair_features = _PAIR_FEATURES

    def describe_answer(self, prompt: Text, answer: Text) -> list[float]:
        """Return the answer features: what the answer repeats of its prompt, and of itself."""
        prompt_words, answer_words = _words(prompt), _words(answer)
        prompt_pairs, answer_pairs = _pairs(prompt), _pairs(answer)
        lines = [line for line in answer.full.splitlines() if line.strip()]
        common = len(prompt_words & answer_words)
        return [
            common / max(len(prompt_words), 1),
            common / max(len(answer_words), 1),
            len(prompt_pairs & answer_pairs) / max(len(prompt_pairs), 1),
            _common_subsequence(prompt, answer) / max(min(len(prompt.words), _WORDS), 1),
            _common_start(prompt.words, answer.words),
            1 - len(answer_pairs) / (len(answer.words) - 1) if len(answer.words) > 1 else 0.0,
            1 - len(set(lines)) / len(lines) if lines else 0.0,
        ]

    def describe_pair(self, a: Text, b: Text) -> list[float]:
        """Return the pair features: what two answers have in common."""
        empty = (not a.full.strip()) + (not b.full.strip())
        return [
            _jaccard(_words(a), _words(b)),
            _jaccard(_pairs(a), _pairs(b)),
            _common_subsequence(a, b) / max(min(max(len(a.words), len(b.words)), _WORDS), 1),
            _common_start(a.words, b.words),
            float(a.full == b.full),
            float(empty == 2),
            float(empty == 1),
        ]


def _words(text: Text) -> KeysView[str]:
    return text.word_counts.keys()


def _pairs(text: Text) -> set[tuple[str, str]]:
    known: set[tuple[str, str]] | None = text.memo.get("pairs")
    if known is None:
        known = text.memo["pairs"] = set(zip(text.words, text.words[1:], strict=False))
    return known


def _jaccard(a: Set[Any], b: Set[Any]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def _common_start(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def _common_subsequence(a: Text, b: Text) -> int:
    """Return the length of the longest common subsequence of words, by Hyyrö's bit-parallel algorithm (2004)."""
    from rapidfuzz.distance import LCSseq

    return int(LCSseq.similarity(a.words[:_WORDS], b.words[:_WORDS]))
