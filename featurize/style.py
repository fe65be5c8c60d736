"""Style and structure, as in the arena's style control: markup is counted outside code blocks."""

import re

from featurize.catalogue import Feature
from featurize.text import Text

FEATURES = (
    Feature("headers", "headers", "Markdown headers"),
    Feature("bullets", "items", "items of bulleted lists"),
    Feature("numbered", "items", "items of numbered lists"),
    Feature("bold", "spans", "bold spans"),
    Feature("code_blocks", "blocks", "fenced code blocks"),
    Feature("inline_code", "spans", "inline code spans"),
    Feature("table_rows", "rows", "rows of Markdown tables"),
    Feature("questions", "marks", "question marks"),
    Feature("exclamations", "marks", "exclamation marks"),
    Feature("digits", "share", "digits per character"),
    Feature("capitals", "share", "upper-case letters per character"),
    Feature("punctuation", "share", "punctuation , ; : ( ) per character"),
    Feature("non_ascii", "share", "characters outside ASCII per character"),
)
# Patterns must take linear time on any text: ^\s* would look at a run of blank lines again from each of its lines.
_COUNTED = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (r"^ {0,3}#{1,6}\s", r"^[ \t]*[-*+•][ \t]", r"^[ \t]*\d+[.)][ \t]", r"\*\*[^*\n]+\*\*|__[^_\n]+__")
)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_TABLE_ROW = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)
_SHARES = tuple(re.compile(pattern) for pattern in (r"\d", r"[A-Z]", r"[,;:()]", r"[^\x00-\x7f]"))


def describe(text: Text) -> list[float]:
    """The features of one text, in the order of FEATURES."""
    prose = text.prose
    size = max(len(text.full), 1)
    return [
        *(len(pattern.findall(prose)) for pattern in _COUNTED),
        text.code_blocks,
        len(_INLINE_CODE.findall(prose)),
        len(_TABLE_ROW.findall(prose)),
        prose.count("?") + prose.count("？"),
        prose.count("!") + prose.count("！"),
        *(len(pattern.findall(text.full)) / size for pattern in _SHARES),
    ]
