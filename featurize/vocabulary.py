"""Vocabulary richness: how varied the wording is."""

import collections
import math

from featurize.catalogue import Feature
from featurize.text import Text

FEATURES = (
    Feature("distinct", "words", "distinct words"),
    Feature("type_token_ratio", "share", "distinct words per word"),
    Feature("root_ttr", "words / sqrt(words)", "distinct words per square root of words (Guiraud 1954)"),
    Feature("hapax_share", "share", "words used exactly once, per distinct word"),
    Feature("word_length", "characters", "mean word length"),
    Feature("long_words", "share", "words of more than six characters (the long words of Björnsson's LIX 1968)"),
)


def describe(text: Text) -> list[float]:
    """The features of one text, in the order of FEATURES; all 0 for a text without words."""
    words = text.words
    if not words:
        return [0.0] * len(FEATURES)
    counts = collections.Counter(words)
    return [
        len(counts),
        len(counts) / len(words),
        len(counts) / math.sqrt(len(words)),
        sum(count == 1 for count in counts.values()) / len(counts),
        sum(map(len, words)) / len(words),
        sum(len(word) > 6 for word in words) / len(words),
    ]
