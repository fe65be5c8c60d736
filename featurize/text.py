"""Analyze each distinct text of a table of records once, for all families."""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from votes.schema import TEXTS

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Ints

# Part of the fingerprint of all features: raise it when texts are taken apart differently.
VERSION = 1
_WORD = re.compile(r"\w+")
_TOKEN = re.compile(r"\b\w\w+\b")  # CountVectorizer's default token_pattern
_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_STOPS = re.compile(r"([.!?。！？।]+)(\s?)")
_FULL_WIDTH = ("。", "！", "？", "।")


def pad_words(words: Sequence[str]) -> str:
    """Return words as one string, each with a space of its own on either side."""
    return f" {'  '.join(words)} "


class Text:
    """The turns of a prompt or an answer and what is derived from them."""

    def __init__(self, turns: Sequence[str | None]) -> None:
        self.turns = turns
        self.full = "\n".join(turn for turn in turns if turn)
        self.memo: dict[str, Any] = {}  # what a family computed and will need again

    @functools.cached_property
    def words(self) -> list[str]:
        """Runs of letters, digits and underscores, in lower case."""
        return _WORD.findall(self.full.lower())

    @functools.cached_property
    def tokens(self) -> list[str]:
        """The word tokens that scikit-learn's CountVectorizer finds by default: runs of two or more."""
        return _TOKEN.findall(self.full.lower())

    @functools.cached_property
    def word_counts(self) -> collections.Counter[str]:
        """How often each word occurs."""
        return collections.Counter(self.words)

    @functools.cached_property
    def spaced(self) -> str:
        """The words with spaces around each, so that phrases can be searched as substrings."""
        return pad_words(self.words)

    @functools.cached_property
    def sentences(self) -> int:
        """Number of stretches that end like a sentence; at least 1 if there is a word."""
        ends = sum(1 for stops, white in _STOPS.findall(self.full) if white or stops.endswith(_FULL_WIDTH))
        ends += self.full.endswith((".", "!", "?"))
        return max(ends, 1 if self.words else 0)

    @functools.cached_property
    def ascii_counts(self) -> Ints:
        """How often each of the 128 ASCII characters occurs. One pass serves all classes of characters."""
        codes = np.frombuffer(self.full.encode("utf-8", "surrogatepass"), np.uint8)
        return np.bincount(codes, minlength=256)[:128]

    @functools.cached_property
    def code_blocks(self) -> list[str]:
        """Fenced code blocks. A block that is never closed counts."""
        return _CODE_BLOCK.findall(self.full) if "```" in self.full else []

    @functools.cached_property
    def prose(self) -> str:
        """The text without fenced code, where # and * are not markup."""
        return _CODE_BLOCK.sub("\n", self.full) if self.code_blocks else self.full


@dataclass(frozen=True)
class DistinctTexts:
    """The texts of a table of records, each distinct one once, in the order in which they first occur."""

    texts: list[Text]
    index: dict[str, Ints]  # for prompt, response_a and response_b: (n,) positions in `texts`
    memo: dict[Any, Any] = field(default_factory=dict)  # what an entry computed and another will need again

    @classmethod
    def of(cls, records: pa.Table) -> DistinctTexts:
        """Return the texts of records."""
        numbers: dict[tuple[str | None, ...], int] = {}
        index = {}
        for part in TEXTS:
            turns = map(tuple, records[part].to_pylist())
            index[part] = np.array([numbers.setdefault(text, len(numbers)) for text in turns], np.int64)
        return cls([Text(turns) for turns in numbers], index)

    def used_by(self, parts: Sequence[str]) -> tuple[Ints, list[Text], Ints]:
        """Return positions of the texts that stand in `parts`, the texts, and how often each stands there."""
        used, counts = np.unique(np.concatenate([self.index[part] for part in parts]), return_counts=True)
        return used, [self.texts[n] for n in used], counts
