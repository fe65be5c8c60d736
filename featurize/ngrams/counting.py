"""Counting n-grams level by level: pairs of overlapping (n-1)-grams become n-grams, each a number in an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Ints
    from featurize.ngrams.tokenize import CodeArray, EncodedTexts

# A square table of this many cells finds an n-gram by its two parts several times faster than binary search.
_TABLE_CELLS = 1 << 22


def frequent_terms(
    coded: EncodedTexts,
    units: Sequence[str],
    weights: Ints,
    separator: str,
    ngram_range: tuple[int, int],
    least: tuple[float, float],
) -> tuple[list[str], Ints, Ints]:
    """Return the n-grams in at least `least[0]` of the texts, or with at least `least[1]` occurrences.

    `units` are the tokens or characters behind the codes; `separator` joins them. Returns the terms, the number of
    texts that each stands in, and how often it occurs, by the texts' weights. An n-gram is no more frequent than its
    parts. So n-grams with a rare part are never counted (Agrawal and Srikant 1994).
    """
    pieces = list(coded.pieces())
    ids = coded.codes
    terms, last_units = list(units), list(units)
    frequent: list[str] = []
    counts: list[Ints] = [np.zeros((2, 0), np.int64)]
    for n in range(1, ngram_range[1] + 1):
        if n > 1:
            ids, prefixes, suffixes = _pair_up(ids)
            terms = [
                f"{terms[prefix]}{separator}{last_units[suffix]}"
                for prefix, suffix in zip(prefixes.tolist(), suffixes.tolist(), strict=True)
            ]
            last_units = [last_units[suffix] for suffix in suffixes.tolist()]
        level = _count_level(coded.text_of, ids, pieces, len(terms), weights)
        kept = np.flatnonzero((level[0] >= max(least[0], 1)) | (level[1] >= max(least[1], 1)))
        renumbered = np.full(len(terms) + 1, -1, np.int32)  # the last entry keeps -1 what it is
        renumbered[kept] = np.arange(len(kept))
        ids = renumbered[ids]
        terms = [terms[k] for k in kept.tolist()]
        last_units = [last_units[k] for k in kept.tolist()]
        if n >= ngram_range[0]:
            frequent += terms
            counts.append(level[:, kept])
        elif coded.whole is not None:
            # char_wb counts a word that is shorter than every n-gram as it is.
            whole = np.where(coded.whole == n, ids, -1)
            frequent += terms
            counts.append(_count_level(coded.text_of, whole, pieces, len(terms), weights))
        if not terms:
            break
    documents, totals = np.concatenate(counts, axis=1)
    return frequent, documents, totals


def _count_level(text_of: CodeArray, ids: CodeArray, pieces: Sequence[slice], width: int, weights: Ints) -> Ints:
    """Return in how many texts each id stands, and how often: (2, width), both by the texts' weights."""
    counts = np.zeros((2, width), np.int64)
    for piece in pieces:
        present = ids[piece] >= 0
        _add_occurrences(counts, text_of[piece][present], ids[piece][present], weights)
    return counts


def _add_occurrences(counts: Ints, text: CodeArray, term: CodeArray, weights: Ints) -> None:
    import pandas as pd

    width = counts.shape[1]
    counts[1] += np.bincount(term, weights=weights[text], minlength=width).astype(np.int64)
    pairs = pd.unique(text * np.int64(width) + term)
    counts[0] += np.bincount(pairs % width, weights=weights[pairs // width], minlength=width).astype(np.int64)


def _pair_up(ids: CodeArray) -> tuple[CodeArray, Ints, Ints]:
    """Return the n-gram at each position, numbered by first occurrence, and each one's first and last (n-1)-gram.

    `ids` are the (n-1)-grams. An n-gram that would cross a boundary contains one of the -1 that stand there.
    """
    import pandas as pd

    base = int(ids.max(initial=-1)) + 1
    keys = np.full(len(ids), -1, np.int64)
    present = (ids[:-1] >= 0) & (ids[1:] >= 0)
    keys[:-1][present] = ids[:-1][present] * np.int64(base) + ids[1:][present]
    numbers, distinct = pd.factorize(keys[keys >= 0])
    paired = np.full(len(ids), -1, np.int32)
    paired[keys >= 0] = numbers
    return paired, distinct // base, distinct % base


@dataclass(frozen=True)
class Matcher:
    """A set of terms to find in texts. Made of arrays and the list of units, so that it travels cheaply.

    Level n numbers the n-grams that occur in terms, also as parts of longer ones. `keys[n]` are sorted, and made of
    the numbers of an n-gram's first and last (n-1)-gram. `term_of[n]` is the number of the term, or -1.
    """

    shortest: int  # the smaller end of the n-gram range
    width: int  # number of terms
    units: list[str]
    keys: list[Ints]
    term_of: list[CodeArray]

    @classmethod
    def of(cls, split: Sequence[tuple[str, ...]], shortest: int) -> Matcher:
        """Return the matcher of terms, each split into its units. They keep their order.

        `shortest` is the smaller end of the n-gram range.
        """
        position = {parts: number for number, parts in enumerate(split)}
        longest = max(map(len, split), default=0)
        nodes = sorted({unit for parts in split for unit in parts})
        number: dict[tuple[str, ...], int] = {(unit,): n for n, unit in enumerate(nodes)}
        keys: list[Ints] = [np.arange(len(nodes))]
        term_of = [np.array([position.get((unit,), -1) for unit in nodes], np.int32)]
        for n in range(2, longest + 1):
            grams = {parts[at : at + n] for parts in split for at in range(len(parts) - n + 1)}
            base = len(number)
            ordered = sorted(grams, key=lambda gram: number[gram[:-1]] * base + number[gram[1:]])
            keys.append(np.array([number[gram[:-1]] * base + number[gram[1:]] for gram in ordered], np.int64))
            term_of.append(np.array([position.get(gram, -1) for gram in ordered], np.int32))
            number = {gram: at for at, gram in enumerate(ordered)}
        return cls(shortest, len(split), nodes, keys, term_of)

    def occurrences(self, coded: EncodedTexts) -> Iterator[tuple[CodeArray, CodeArray]]:
        """Yield every occurrence of a term as (text, term), in portions that never divide a text.

        The texts must be coded by `units`.
        """
        finders = [self._finder(n) for n in range(1, len(self.keys))]
        for piece in coded.pieces():
            text_of = coded.text_of[piece]
            ids = coded.codes[piece]
            matches = []
            for n, term_of in enumerate(self.term_of, start=1):
                if n > 1:
                    ids = finders[n - 2](ids)
                if n < self.shortest and coded.whole is None:
                    continue
                terms = np.append(term_of, -1)[ids]
                if n < self.shortest and coded.whole is not None:
                    # char_wb counts a word that is shorter than every n-gram as it is.
                    terms[coded.whole[piece] != n] = -1
                matched = np.flatnonzero(terms >= 0)
                matches.append((text_of[matched], terms[matched]))
            if matches:
                yield np.concatenate([text for text, _ in matches]), np.concatenate([term for _, term in matches])

    def _finder(self, level: int) -> Callable[[CodeArray], CodeArray]:
        """Return a function from the (n-1)-gram at each position to the n-gram there, or -1."""
        keys, base = self.keys[level], len(self.keys[level - 1])
        if base * base <= _TABLE_CELLS:
            table = np.full(base * base + 1, -1, np.int32)  # the last entry is for positions without a pair
            table[keys] = np.arange(len(keys))

            def look_up(ids: CodeArray) -> CodeArray:
                pairs = np.full(len(ids), base * base, np.int64)
                present = (ids[:-1] >= 0) & (ids[1:] >= 0)
                pairs[:-1] = np.where(present, ids[:-1] * np.int64(base) + ids[1:], base * base)
                return table[pairs]

            return look_up

        def search(ids: CodeArray) -> CodeArray:
            numbers = np.full(len(ids), -1, np.int32)
            present = np.flatnonzero((ids[:-1] >= 0) & (ids[1:] >= 0))
            pairs = ids[present] * np.int64(base) + ids[present + 1]
            at = np.minimum(np.searchsorted(keys, pairs), len(keys) - 1)
            numbers[present] = np.where(keys[at] == pairs, at, -1)
            return numbers

        return search


def count_terms(coded: EncodedTexts, weights: Ints, matcher: Matcher) -> Ints:
    """Return in how many texts each term of the matcher stands, and how often: (2, width), by the texts' weights."""
    counts = np.zeros((2, matcher.width), np.int64)
    for text, term in matcher.occurrences(coded):
        _add_occurrences(counts, text, term, weights)
    return counts


def count_matrix(coded: EncodedTexts, texts: int, matcher: Matcher) -> tuple[Ints, CodeArray, Doubles]:
    """Return the count of each term in each of the `texts` texts, as the arrays of a CSR matrix with sorted columns."""
    rows, columns, counts = [], [], []
    for text, term in matcher.occurrences(coded):
        pairs = text * np.int64(matcher.width) + term
        first, last = int(text.min(initial=0)), int(text.max(initial=-1))
        if len(text) and (last - first + 1) * matcher.width <= 4 * len(text) + _TABLE_CELLS:
            dense = np.bincount(pairs - first * matcher.width)
            pairs = np.flatnonzero(dense)
            counts.append(dense[pairs])
            pairs += first * matcher.width
        else:
            pairs, number = np.unique(pairs, return_counts=True)
            counts.append(number)
        rows.append(pairs // matcher.width)
        columns.append((pairs % matcher.width).astype(np.int32))
    all_rows = np.concatenate([np.zeros(0, np.int64), *rows])
    offsets = np.concatenate([[0], np.bincount(all_rows, minlength=texts).cumsum()])
    return (
        offsets,
        np.concatenate([np.zeros(0, np.int32), *columns]),
        np.concatenate([np.zeros(0), *counts]),
    )
