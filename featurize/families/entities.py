"""Entities by rule, in prose: names, numbers, dates, addresses, identifiers. Those of a model: named_entities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

_FEATURES = (
    Feature("names", "names", "runs of capitalized words that do not begin a sentence or line"),
    Feature("distinct_names", "names", "distinct ones among them"),
    Feature("acronyms", "words", "words of two or more capitals"),
    Feature("numbers", "numbers", "runs of digits, with their thousands, decimals, slashes and dashes"),
    Feature("years", "years", "years from 1000 to 2099"),
    Feature("dates", "dates", "2024-05-31, 31/5/24, May 31, 31 May and what looks alike"),
    Feature("money", "amounts", "amounts with a currency's sign, code or name"),
    Feature("percentages", "percentages", "numbers with % or percent"),
    Feature("urls", "addresses", "web addresses"),
    Feature("emails", "addresses", "e-mail addresses"),
    Feature(
        "identifiers", "identifiers", "snake_case, camelCase, dotted.calls() and paths/of/files outside code blocks"
    ),
    Feature("quotations", "quotations", "quoted stretches of up to 200 characters"),
    Feature(
        "all_per_word",
        "share",
        "names, numbers, dates, amounts and addresses per word; a date counts as a number as well",
    ),
)
_MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    "Nov(?:ember)?|Dec(?:ember)?"
)
# Linear on any text: every repetition is bounded or cannot backtrack. Patterns that begin with a rare character (a
# digit, a sign) run several times faster than patterns that begin with a word boundary.
_NAME = re.compile(r"(?<=[a-z0-9,;:)] )[A-Z][a-z]+(?: [A-Z][a-z]+){0,4}")
_ACRONYM = re.compile(r"\b[A-Z]{2,10}\b")
_NUMBER = re.compile(r"\d[\d.,/-]*")
_YEAR = re.compile(r"(?:1\d|20)\d\d[.,/-]*")
_NUMERIC_DATE = re.compile(r"(?:\d{4}-\d\d?-\d\d?|\d\d?[/.]\d\d?[/.]\d{2,4})[.,/-]*")
_NAMED_DATE = re.compile(rf"\b(?:{_MONTHS})\.? \d|\d\.? (?:{_MONTHS})\b")
_MONEY = re.compile(r"(?:[$€£¥₹]|USD|EUR|GBP) ?\d|\d ?(?:USD|EUR|GBP|dollars?|euros?|pounds?|[€£¥])")
_PERCENTAGE = re.compile(r"\d ?%|\d percent\b")
_WWW = re.compile(r"(?<![\w/])www\.")
_EMAIL = re.compile(r"(?<=\w)@\w{1,63}\.\w")
_SNAKE = re.compile(r"[a-z0-9]_[a-z0-9]")
_CAMEL = re.compile(r"[a-z][A-Z]\w")
_PATH = re.compile(r"[A-Za-z_]/\w{1,40}/\w")
_QUOTATION = re.compile(r"\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|«[^»\n]{1,200}»")


@FAMILIES.register
class EntitiesFamily(TextFamily):
    """Entities by rule, in prose: names, numbers, dates, addresses, identifiers. Those of a model: named_entities."""

    name = "entities"
    summary = "by rule: names, acronyms, numbers, dates, money, addresses, identifiers, quotations"
    version = 2
    position = 3
    text_features = _FEATURES

    def describe(self, text: Text) -> list[float]:
        """Return the text features."""
        prose = text.prose
        names = _NAME.findall(prose)
        numbers = _NUMBER.findall(prose)
        years = sum(1 for number in numbers if _YEAR.fullmatch(number))
        dates = sum(1 for number in numbers if _NUMERIC_DATE.fullmatch(number))
        money = percentages = 0
        if numbers:
            dates += _count(_NAMED_DATE, prose)
            money, percentages = _count(_MONEY, prose), _count(_PERCENTAGE, prose)
        urls = prose.count("http://") + prose.count("https://") + (_count(_WWW, prose) if "www." in prose else 0)
        emails = _count(_EMAIL, prose) if "@" in prose else 0
        snakes = _count(_SNAKE, prose) if "_" in prose else 0
        paths = _count(_PATH, prose) if "/" in prose else 0
        entities = len(names) + len(numbers) + dates + money + urls + emails
        return [
            len(names),
            len(set(names)),
            _count(_ACRONYM, prose),
            len(numbers),
            years,
            dates,
            money,
            percentages,
            urls,
            emails,
            snakes + _count(_CAMEL, prose) + prose.count("()") + paths,
            _count(_QUOTATION, prose),
            entities / max(len(text.words), 1),
        ]


def _count(pattern: re.Pattern[str], text: str) -> int:
    return len(pattern.findall(text))
