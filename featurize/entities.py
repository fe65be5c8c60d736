"""Entities by rule, in prose: names, numbers, dates, addresses, identifiers. Those of a model: named_entities."""

import re

from featurize.catalogue import Feature
from featurize.text import Text

FEATURES = (
    Feature("names", "names", "runs of capitalised words that do not begin a sentence or line"),
    Feature("distinct_names", "names", "distinct ones among them"),
    Feature("acronyms", "words", "words of two or more capitals"),
    Feature("numbers", "numbers", "numbers, with their thousands and decimals"),
    Feature("years", "years", "years from 1000 to 2099"),
    Feature("dates", "dates", "dates such as 2024-05-31, 31/5/24, May 31 or 31 May"),
    Feature("money", "amounts", "amounts with a currency's sign, code or name"),
    Feature("percentages", "percentages", "numbers with % or percent"),
    Feature("urls", "addresses", "web addresses"),
    Feature("emails", "addresses", "e-mail addresses"),
    Feature(
        "identifiers", "identifiers", "snake_case, camelCase, dotted.calls() and paths/of/files outside code blocks"
    ),
    Feature("quotations", "quotations", "quoted stretches of up to 200 characters"),
    Feature("all_per_word", "share", "names, numbers, dates, amounts and addresses per word"),
)
_MONTHS = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    "Nov(?:ember)?|Dec(?:ember)?"
)
# Linear on any text: every repetition is bounded or cannot give back what it took.
_NAME = re.compile(r"(?<=[a-z0-9,;:)] )[A-Z][a-z]+(?: [A-Z][a-z]+){0,4}")
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b[A-Z]{2,10}\b",
        r"(?<![\w.])\d{1,20}(?:[.,]\d{1,9}){0,6}(?!\w)",
        r"\b(?:1\d|20)\d\d\b",
        r"\b\d{4}-\d\d?-\d\d?\b|\b\d\d?[/.]\d\d?[/.]\d{2,4}\b|"
        rf"\b(?:{_MONTHS})\.? \d{{1,2}}\b|\b\d{{1,2}}\.? (?:{_MONTHS})\b",
        r"[$€£¥₹] ?\d|\b\d{1,20}(?:[.,]\d{1,9}){0,6} ?(?:USD|EUR|GBP|dollars?|euros?|pounds?|[€£¥])",
        r"\d ?%|\d percent\b",
        r"https?://|\bwww\.",
        r"(?<=\w)@\w{1,63}\.\w",
        r"\b[a-z]{1,40}_[a-z_0-9]|\b[a-z]{1,40}[A-Z]\w|\w\(\)|\b\w{1,40}/\w{1,40}/\w",
        r"\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|«[^»\n]{1,200}»",
    )
)


def describe(text: Text) -> list[float]:
    """The features of one text, in the order of FEATURES."""
    prose = text.prose
    names = _NAME.findall(prose)
    acronyms, numbers, years, dates, money, percentages, urls, emails, identifiers, quotations = (
        len(pattern.findall(prose)) for pattern in _PATTERNS
    )
    entities = len(names) + numbers + dates + money + urls + emails
    return [
        len(names),
        len(set(names)),
        acronyms,
        numbers,
        years,
        dates,
        money,
        percentages,
        urls,
        emails,
        identifiers,
        quotations,
        entities / max(len(text.words), 1),
    ]
