"""Style and structure, as in the arena's style control: markup is counted outside code blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from core.registry import FAMILIES
from featurize.blocks import Feature
from featurize.family import TextFamily

if TYPE_CHECKING:
    from featurize.text import Text

_FEATURES = (
    Feature("headers", "headers", "Markdown headers"),
    Feature("bullets", "items", "items of bulleted lists"),
    Feature("numbered", "items", "items of numbered lists"),
    Feature("bold", "spans", "bold spans"),
    Feature("quotes", "lines", "quoted lines"),
    Feature("table_rows", "rows", "rows of Markdown tables, the line of dashes included"),
    Feature("inline_code", "spans", "inline code spans"),
    Feature("latex", "formulas", r"LaTeX formulas between $$ and $$, \[ \] or \( \), and \begin environments"),
    Feature("links", "links", "Markdown links and images"),
    Feature("emoji", "emoji", "emoji and pictographs"),
    Feature("code_blocks", "blocks", "fenced code blocks"),
    Feature("code_chars", "characters", "characters of fenced code blocks, the fences included"),
    Feature("questions", "marks", "question marks"),
    Feature("exclamations", "marks", "exclamation marks"),
    Feature("digits", "share", "digits 0 to 9 per character"),
    Feature("capitals", "share", "capitals A to Z per character"),
    Feature("punctuation", "share", "punctuation , ; : ( ) per character"),
    Feature("white", "share", "ASCII white space per character"),
    Feature("non_ascii", "share", "characters outside ASCII per character"),
)
# Patterns must take linear time on any text. With ^\s* every line of a blank run would scan the rest of the run. Each
# pattern has a character that every match contains. Searching for it first is many times faster.
_COUNTED = tuple(
    (needed, re.compile(pattern, re.MULTILINE))
    for needed, pattern in (
        ("#", r"^ {0,3}#{1,6}\s"),
        ("", r"^[ \t]*[-*+•][ \t]"),
        ("", r"^[ \t]*\d+[.)][ \t]"),
        ("", r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
        (">", r"^ {0,3}>"),
        ("|", r"^[ \t]*\|.*\|[ \t]*$"),
        ("`", r"`[^`\n]+`"),
        ("", r"\$\$[^$]{1,2000}\$\$|\\\[|\\\(|\\begin\{"),
        ("](", r"\]\([^()\s]+\)"),
    )
)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\U0001f1e6-\U0001f1ff]")
_CLASSES = np.zeros((128, 4), np.int64)
_CLASSES[[ord(digit) for digit in "0123456789"], 0] = 1
_CLASSES[ord("A") : ord("Z") + 1, 1] = 1
_CLASSES[[ord(mark) for mark in ",;:()"], 2] = 1
_CLASSES[[ord(white) for white in " \t\n\r\f\v"], 3] = 1


@FAMILIES.register
class StyleFamily(TextFamily):
    """Style and structure, as in the arena's style control: markup is counted outside code blocks."""

    name = "style"
    summary = "headers, lists, bold, tables, LaTeX, links, emoji, code; counted outside code blocks"
    version = 2
    position = 4
    text_features = _FEATURES

    def describe(self, text: Text) -> list[float]:
        """Return the text features."""
        prose = text.prose
        size = max(len(text.full), 1)
        return [
            *(len(pattern.findall(prose)) if needed in prose else 0 for needed, pattern in _COUNTED),
            0 if prose.isascii() else len(_EMOJI.findall(prose)),
            len(text.code_blocks),
            sum(map(len, text.code_blocks)),
            prose.count("?") + prose.count("？"),
            prose.count("!") + prose.count("！"),
            *(text.ascii_counts @ _CLASSES / size).tolist(),
            1 - int(text.ascii_counts.sum()) / size if text.full else 0.0,
        ]
