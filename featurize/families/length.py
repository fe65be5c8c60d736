"""Length: how much there is to read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from featurize.columns import Feature

if TYPE_CHECKING:
    from featurize.text import Text

FEATURES = (
    Feature("chars", "characters", "characters of all turns"),
    Feature("words", "words", "runs of letters and digits"),
    Feature(
        "tokens", "tokens", "pieces of up to 6 letters, digits singly and marks: close to a language model's tokens"
    ),
    Feature("sentences", "sentences", "stretches that end in . ! ? or their full-width and Devanagari counterparts"),
    Feature("lines", "lines", "lines that are not blank"),
    Feature("paragraphs", "paragraphs", "stretches between blank lines"),
    Feature("turns", "turns", "turns, null ones included"),
    Feature("log_words", "ln words", "ln(1 + words): the hundredth word adds less than the tenth"),
    Feature("words_per_sentence", "words", "words per sentence"),
    Feature("last_turn_chars", "characters", "characters of the last turn"),
    Feature("last_turn_words", "words", "words of the last turn"),
    Feature("empty", "0 or 1", "1 if there is no text at all"),
    Feature("null_turns", "turns", "turns that are null in the input"),
)
_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n\s*")
# Latin words of English prose are one or two tokens for the tokenizers of current models; scripts without spaces
# between words have about one token per character.
_TOKEN = re.compile(r"[A-Za-z]{1,6}|\d|[^\sA-Za-z\d]")
_WORD = re.compile(r"\w+")


def describe(text: Text) -> list[float]:
    """The features of one text, in the order of FEATURES."""
    words = len(text.words)
    stripped = text.full.strip()
    last = (text.turns[-1] if text.turns else "") or ""
    return [
        len(text.full),
        words,
        len(_TOKEN.findall(text.full)),
        text.sentences,
        sum(1 for line in text.full.splitlines() if line.strip()),
        len(_PARAGRAPH_BREAK.findall(stripped)) + 1 if stripped else 0,
        len(text.turns),
        math.log1p(words),
        words / max(text.sentences, 1),
        len(last),
        words if len(text.turns) == 1 else len(_WORD.findall(last)),
        float(not stripped),
        sum(turn is None for turn in text.turns),
    ]
