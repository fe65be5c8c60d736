"""Vocabulary richness: how varied the wording is, and how hard it is to read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

_FEATURES = (
    Feature("distinct", "words", "distinct words"),
    Feature("type_token_ratio", "share", "distinct words per word"),
    Feature("root_ttr", "words / sqrt(words)", "distinct words per square root of words (Guiraud 1954)"),
    Feature("hapax_share", "share", "words used exactly once, per distinct word"),
    Feature("word_length", "characters", "mean word length"),
    Feature("long_words", "share", "words of more than six characters (the long words of Björnsson's LIX 1968)"),
    Feature("lix", "points", "words per sentence + 100 * long words: readability for any alphabet (Björnsson 1968)"),
    Feature("flesch", "points", "Flesch reading ease (1948), syllables taken as runs of vowels; within -200 to 200"),
    Feature("grade", "school years", "automated readability index (Smith and Senter 1967); within -20 to 60"),
)
_VOWELS = re.compile(r"[aeiouyàâäáãåæèéêëìíîïòóôöõøœùúûüýаеёиоуыэюя]+")


@FAMILIES.register
class VocabularyFamily(TextFamily):
    """Vocabulary richness: how varied the wording is, and how hard it is to read."""

    name = "vocabulary"
    summary = "type-token ratio, hapax share, word length, readability (LIX, Flesch, ARI)"
    version = 2
    position = 2
    text_features = _FEATURES

    def describe(self, text: Text) -> list[float]:
        """Return the text features; all 0 for a text without words."""
        words = text.words
        if not words:
            return [0.0] * len(_FEATURES)
        counts = text.word_counts
        lengths = list(map(len, words))
        letters = sum(lengths)
        long_words = sum(map((6).__lt__, lengths)) / len(words)
        words_per_sentence = len(words) / text.sentences
        syllables = max(len(_VOWELS.findall(text.full.lower())) / len(words), 1.0)
        flesch = 206.835 - 1.015 * words_per_sentence - 84.6 * syllables
        grade = 4.71 * letters / len(words) + 0.5 * words_per_sentence - 21.43
        return [
            len(counts),
            len(counts) / len(words),
            len(counts) / math.sqrt(len(words)),
            list(counts.values()).count(1) / len(counts),
            letters / len(words),
            long_words,
            words_per_sentence + 100 * long_words,
            min(max(flesch, -200.0), 200.0),
            min(max(grade, -20.0), 60.0),
        ]
