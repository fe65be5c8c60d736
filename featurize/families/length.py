"""Length: how much there is to read."""

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
# For current tokenizers, words of English prose are one or two tokens. Scripts without spaces between words have about
# one token per character.
_TOKEN = re.compile(r"[A-Za-z]{1,6}|\d|[^\sA-Za-z\d]")
_WORD = re.compile(r"\w+")


@FAMILIES.register
class LengthFamily(TextFamily):
    """Length: how much there is to read."""

    name = "length"
    summary = "characters, words, tokens, sentences, lines, paragraphs and turns; of the last turn too"
    version = 2
    position = 1
    text_features = _FEATURES

    def describe(self, text: Text) -> list[float]:
        """Return the text features."""
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
