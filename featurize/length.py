"""Length: how much there is to read."""

import math
import re

from featurize.catalogue import Feature
from featurize.text import Text

FEATURES = (
    Feature("chars", "characters", "characters of all turns"),
    Feature("words", "words", "runs of letters and digits"),
    Feature("sentences", "sentences", "stretches that end in . ! ? or their full-width and Devanagari counterparts"),
    Feature("lines", "lines", "lines that are not blank"),
    Feature("turns", "turns", "turns, null ones included"),
    Feature("log_words", "ln words", "ln(1 + words): the hundredth word adds less than the tenth"),
    Feature("last_turn_chars", "characters", "characters of the last turn"),
    Feature("empty", "0 or 1", "1 if there is no text at all"),
    Feature("null_turns", "turns", "turns that are null in the input"),
)
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+(?=\s|$)|[。！？।]+")


def describe(text: Text) -> list[float]:
    """The features of one text, in the order of FEATURES."""
    words = len(text.words)
    sentences = len(_SENTENCE_END.findall(text.full))
    lines = sum(1 for line in text.full.splitlines() if line.strip())
    last = text.turns[-1] if text.turns else ""
    return [
        len(text.full),
        words,
        max(sentences, 1 if words else 0),
        lines,
        len(text.turns),
        math.log1p(words),
        len(last or ""),
        float(not text.full.strip()),
        sum(turn is None for turn in text.turns),
    ]
