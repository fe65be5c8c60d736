"""How an answer opens: its first words show tone, refusals and the kind of model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

_OPENINGS = (
    (
        "agrees",
        "Sure, Certainly, Of course, Absolutely, Definitely",
        r"(?:sure|certainly|of course|absolutely|definitely)\b",
    ),
    (
        "regrets",
        "I'm sorry, Sorry, I apologize, Unfortunately, My apologies",
        r"(?:i['’]?m sorry|sorry|i apologi[sz]e|unfortunately|my apologies)",
    ),
    ("as_an_ai", "As an AI, As a large language model", r"as an? (?:ai|artificial|language|large)\b"),
    ("here_is", "Here's, Here is, Here are", r"here(?:['’]s| is| are)\b"),
    ("greets", "Hello, Hi, Hey, Greetings", r"(?:hello|hi|hey|greetings)\b"),
    ("the", "The", r"the\b"),
    ("i", "I", r"i\b"),
    ("yes_or_no", "Yes, No", r"(?:yes|no)\b"),
)
_FEATURES = tuple(
    Feature(name, "0 or 1", f"1 if the answer opens with one of: {words}") for name, words, _ in _OPENINGS
)
_PATTERNS = tuple(re.compile(pattern, re.IGNORECASE) for *_, pattern in _OPENINGS)
_START = 64  # characters looked at, behind white space


@FAMILIES.register
class OpeningFamily(TextFamily):
    """How an answer opens: its first words show tone, refusals and the kind of model."""

    name = "opening"
    summary = 'how an answer opens: agreeing, regretting, "As an AI", "Here is", greeting, The, I, Yes or No'
    version = 2
    position = 7
    answer_features = _FEATURES

    def describe_answer(self, prompt: Text, answer: Text) -> list[float]:
        """Return the answer features."""
        start = answer.full.lstrip()[:_START]
        return [float(pattern.match(start) is not None) for pattern in _PATTERNS]
