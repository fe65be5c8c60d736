"""Texts as rows of integer codes, so that n-grams can be counted with array operations instead of strings.

Tokens follow scikit-learn's CountVectorizer. There is one code for each character or token, and -1 after each stretch
that no n-gram may cross.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from featurize.text import Text

Analyzer = Literal["word", "char", "char_wb"]
CodeArray = npt.NDArray[np.int32]

_WHITE = re.compile(r"\s\s+")  # CountVectorizer's _white_spaces


@dataclass(frozen=True)
class EncodedTexts:
    """Some texts as codes. Negative codes never belong to an n-gram."""

    codes: CodeArray  # (length,)
    text_of: CodeArray  # (length,): number of the text that each code belongs to
    whole: CodeArray | None  # (length,) for char_wb: length of the padded word that starts here, else 0

    def pieces(self, size: int = 1 << 18) -> Iterable[slice]:
        """Yield slices that together cover all codes and cut only between texts, of `size` codes where texts allow.

        Work on one piece stays in the processor's cache: counting whole shards at once took three times as long.
        """
        starts = np.flatnonzero(np.diff(self.text_of, prepend=-1))
        first = 0
        while first < len(starts):
            last = int(np.searchsorted(starts, starts[first] + size))
            last = max(last, first + 1)
            yield slice(int(starts[first]), int(starts[last]) if last < len(starts) else len(self.codes))
            first = last


def split_term(term: str, analyzer: Analyzer) -> tuple[str, ...]:
    """Return the units (tokens or characters) that an n-gram consists of."""
    return tuple(term.split(" ")) if analyzer == "word" else tuple(term)


def encode_new(texts: Sequence[Text], analyzer: Analyzer) -> tuple[EncodedTexts, list[str]]:
    """Code texts by whatever units they hold. Return the codes, and the unit (token or character) behind each code."""
    if analyzer != "word":
        coded = _characters(texts, analyzer)
        present = np.flatnonzero(np.bincount(coded.codes[coded.codes >= 0]))
        table = np.full(0x110000, -1, np.int32)
        table[present] = np.arange(len(present))
        units = [chr(code) for code in present.tolist()]
        return EncodedTexts(_look_up(table, coded.codes), coded.text_of, coded.whole), units
    numbers: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    coded = _words(texts, numbers.__getitem__)
    return coded, list(numbers)


def encode_known(texts: Sequence[Text], analyzer: Analyzer, units: Sequence[str]) -> EncodedTexts:
    """Code texts by given units. All others become -1."""
    if analyzer == "word":
        known = {unit: number for number, unit in enumerate(units)}

        class Known(dict[str, int]):
            def __missing__(self, unit: str) -> int:
                return -1

        return _words(texts, Known(known).__getitem__)
    coded = _characters(texts, analyzer)
    table = np.full(0x110000, -1, np.int32)
    table[np.fromiter(map(ord, units), np.int64, len(units))] = np.arange(len(units))
    return EncodedTexts(_look_up(table, coded.codes), coded.text_of, coded.whole)


def _look_up(table: CodeArray, codes: CodeArray) -> CodeArray:
    numbers = table[codes]  # -1 reads the last entry, which the next line corrects
    numbers[codes < 0] = -1
    return numbers


def _words(texts: Sequence[Text], number: Callable[[str], int]) -> EncodedTexts:
    codes: list[int] = []
    lengths = np.empty(len(texts), np.int64)
    for n, text in enumerate(texts):
        before = len(codes)
        codes.extend(map(number, text.tokens))
        codes.append(-1)
        lengths[n] = len(codes) - before
    return EncodedTexts(np.array(codes, np.int32), np.repeat(np.arange(len(texts), dtype=np.int32), lengths), None)


def _characters(texts: Sequence[Text], analyzer: Analyzer) -> EncodedTexts:
    cleaned = [_WHITE.sub(" ", text.full.lower()) for text in texts]
    if analyzer == "char":
        stretches = cleaned
        stretch_lengths = np.fromiter(map(len, cleaned), np.int64, len(cleaned)) + 1
        text_of = np.repeat(np.arange(len(texts), dtype=np.int32), stretch_lengths)
    else:
        words = [[f" {word} " for word in text.split()] for text in cleaned]
        stretches = list(itertools.chain.from_iterable(words))
        stretch_lengths = np.fromiter(map(len, stretches), np.int64, len(stretches)) + 1
        text_of_stretch = np.repeat(np.arange(len(texts), dtype=np.int32), [len(padded) for padded in words])
        text_of = np.repeat(text_of_stretch, stretch_lengths)
    joined = "\0".join([*stretches, ""]).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, np.int32).copy()
    ends = stretch_lengths.cumsum()
    codes[ends - 1] = -1  # by position: a text may hold the separator itself
    whole = None
    if analyzer == "char_wb":
        whole = np.zeros(len(codes), np.int32)
        whole[ends - stretch_lengths] = stretch_lengths - 1
    return EncodedTexts(codes, text_of, whole)
