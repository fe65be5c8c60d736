"""Word and character n-grams: a vocabulary fitted on shards and merged, and sparse blocks made with it.

The result is scikit-learn's CountVectorizer and TfidfVectorizer, to the column; the counting is in featurize.ngrams.counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import InputError
from featurize.ngrams import counting
from featurize.ngrams.term_counts import TermCounts, report_limits

if TYPE_CHECKING:
    import scipy.sparse

    from featurize.ngrams.tokenize import Analyzer, Codes, Ints
    from featurize.text import Text

# Part of the fingerprint of n-gram files: raise it when the same settings give other numbers.
VERSION = 2


@dataclass(frozen=True)
class NgramSettings:
    """One block: what is counted, and which terms are kept. The names are scikit-learn's."""

    analyzer: Analyzer
    ngram_range: tuple[int, int]
    weighting: Literal["count", "tfidf"]
    min_df: float
    max_features: int


@dataclass(frozen=True)
class Vocabulary:
    """The terms of a block in order, and the inverse document frequency of each."""

    terms: list[str]
    idf: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """How often each term (columns) stands in each text (rows): the arrays of a CSR matrix, columns in order."""

    offsets: Ints  # (rows + 1,)
    columns: Codes  # (entries,)
    values: npt.NDArray[np.float64]  # (entries,)

    def rows(self) -> Ints:
        """The row of each entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def report(texts: Sequence[Text], weights: Ints, settings: NgramSettings) -> TermCounts:
    """What a shard says of its terms; text i counts `weights[i]` times."""
    documents, totals, absent = report_limits(settings.min_df, int(weights.sum()))
    found = counting.frequent_terms(texts, weights, settings.analyzer, settings.ngram_range, documents, totals)
    return TermCounts.of_shard(*found, absent)


def matcher(terms: Sequence[str], settings: NgramSettings) -> counting.Matcher:
    """What finds these terms in texts."""
    return counting.Matcher.of(terms, settings.analyzer, settings.ngram_range)


def choose_vocabulary(counts: TermCounts, texts: int, settings: NgramSettings) -> Vocabulary:
    """The terms that scikit-learn would keep of `texts` documents, and their smoothed inverse document frequencies.

    Terms in fewer than min_df of the texts go first, then all but the max_features most frequent. The argsort on
    alphabetically ordered terms is the one in CountVectorizer._limit_features, so that ties fall the same way. idf is
    ln((1 + texts) / (1 + documents)) + 1, as in TfidfTransformer with its default smoothing. Raises InputError if no
    term is left.
    """
    terms, documents, totals = counts.terms, counts.column("documents"), counts.column("totals")
    order = sorted(np.flatnonzero(documents >= max(settings.min_df * texts, 1)).tolist(), key=terms.__getitem__)
    if not order:
        raise InputError(
            f"no term stands in at least {settings.min_df:.2%} of the {texts} texts",
            where="this n-gram block",
            fix="lower min_df, or leave this block out.",
        )
    kept = [order[place] for place in np.sort((-totals[order]).argsort()[: settings.max_features])]
    idf = np.log((1 + texts) / (1 + documents[kept])) + 1
    return Vocabulary([terms[n] for n in kept], idf)


def count(texts: Sequence[Text], vocabulary: Vocabulary, settings: NgramSettings) -> Counts:
    """How often each term of the vocabulary stands in each text."""
    return Counts(*counting.count_matrix(texts, matcher(vocabulary.terms, settings)))


def weigh(counts: Counts, vocabulary: Vocabulary, settings: NgramSettings) -> Counts:
    """The counts themselves, or tf-idf rows of Euclidean length 1 as TfidfVectorizer's defaults give."""
    if settings.weighting == "count":
        return counts
    values = counts.values * vocabulary.idf[counts.columns]
    rows = counts.rows()
    lengths = np.sqrt(np.bincount(rows, weights=values**2, minlength=len(counts.offsets) - 1))
    return Counts(counts.offsets, counts.columns, values / lengths[rows])


def take(counts: Counts, rows: Ints) -> Counts:
    """The rows in this order, some perhaps several times."""
    lengths = np.diff(counts.offsets)[rows]
    offsets = np.concatenate([[0], lengths.cumsum()])
    entries = np.arange(offsets[-1]) + np.repeat(counts.offsets[rows] - offsets[:-1], lengths)
    return Counts(offsets, counts.columns[entries], counts.values[entries])


def to_arrow(counts: Counts) -> pa.ListArray:
    """One list per row of structs (index int32, value float32), in index order."""
    entries = pa.StructArray.from_arrays(
        [pa.array(counts.columns.astype(np.int32)), pa.array(counts.values.astype(np.float32))], ["index", "value"]
    )
    return pa.ListArray.from_arrays(pa.array(counts.offsets.astype(np.int32)), entries)


def to_csr(rows: pa.ListArray, width: int) -> scipy.sparse.csr_matrix:
    """The block (n, width) of sparse rows as made by `to_arrow`."""
    import scipy.sparse

    entries = rows.flatten()
    offsets = np.concatenate([[0], rows.value_lengths().to_numpy().cumsum()])
    arrays = (entries.field("value").to_numpy(), entries.field("index").to_numpy(), offsets)
    return scipy.sparse.csr_matrix(arrays, shape=(len(rows), width))
