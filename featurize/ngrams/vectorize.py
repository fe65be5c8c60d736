"""Word and character n-grams: counts of shards, a vocabulary chosen from them, and sparse rows made with it.

The result equals scikit-learn's CountVectorizer and TfidfVectorizer, column by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from core.errors import InputError
from featurize.ngrams import counting
from featurize.ngrams.term_counts import TermCounts, report_thresholds
from featurize.ngrams.tokenize import encode_known, encode_new, split_term

if TYPE_CHECKING:
    from core.arrays import Doubles, Ints
    from featurize.ngrams.tokenize import Analyzer, CodeArray
    from featurize.text import Text


@dataclass(frozen=True)
class Vectorizer:
    """What is counted, and which terms are kept. The names are scikit-learn's."""

    analyzer: Analyzer
    ngram_range: tuple[int, int]
    weighting: Literal["count", "tfidf"]
    min_df: float
    max_features: int


@dataclass(frozen=True)
class NgramVocabulary:
    """The terms of a block in order, and the inverse document frequency of each."""

    terms: list[str]
    idf: Doubles


@dataclass(frozen=True)
class SparseCounts:
    """How often each term (columns) stands in each text (rows): the arrays of a CSR matrix, columns in order."""

    offsets: Ints  # (rows + 1,)
    columns: CodeArray  # (entries,)
    values: Doubles  # (entries,)

    def rows(self) -> Ints:
        """Return the row of each entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def report_terms(texts: Sequence[Text], weights: Ints, vectorizer: Vectorizer) -> TermCounts:
    """Return a shard's report about its terms. Text i counts `weights[i]` times."""
    documents, totals, absent = report_thresholds(vectorizer.min_df, int(weights.sum()))
    coded, units = encode_new(texts, vectorizer.analyzer)
    separator = " " if vectorizer.analyzer == "word" else ""
    terms = counting.frequent_terms(coded, units, weights, separator, vectorizer.ngram_range, (documents, totals))
    return TermCounts.of_shard(*terms, absent)


def build_matcher(terms: Sequence[str], vectorizer: Vectorizer) -> counting.Matcher:
    """Return a matcher that finds these terms in texts."""
    split = [split_term(term, vectorizer.analyzer) for term in terms]
    return counting.Matcher.of(split, vectorizer.ngram_range[0])


def count_exactly(texts: Sequence[Text], weights: Ints, terms: counting.Matcher, analyzer: Analyzer) -> Ints:
    """Return in how many texts each term stands, and how often: (2, terms), by the texts' weights."""
    return counting.count_terms(encode_known(texts, analyzer, terms.units), weights, terms)


def choose_vocabulary(counts: TermCounts, texts: int, vectorizer: Vectorizer) -> NgramVocabulary:
    """Return the terms that scikit-learn would keep of `texts` documents, and their smoothed document frequencies.

    Terms in fewer than min_df of the texts are dropped first, then all but the max_features most frequent. The argsort
    on alphabetically ordered terms breaks ties as CountVectorizer._limit_features does. The idf is ln((1 + texts) / (1
    + documents)) + 1, as in TfidfTransformer with its default smoothing. Raises InputError if no term is left.
    """
    terms, documents, totals = counts.terms, counts.column("documents"), counts.column("totals")
    order = sorted(np.flatnonzero(documents >= max(vectorizer.min_df * texts, 1)).tolist(), key=terms.__getitem__)
    if not order:
        raise InputError(
            f"no term stands in at least {vectorizer.min_df:.2%} of the {texts} texts",
            where="this n-gram block",
            fix="lower min_df, or leave this block out.",
        )
    kept = [order[rank] for rank in np.sort((-totals[order]).argsort()[: vectorizer.max_features])]
    idf = np.log((1 + texts) / (1 + documents[kept])) + 1
    return NgramVocabulary([terms[n] for n in kept], idf)


def count_texts(texts: Sequence[Text], vocabulary: NgramVocabulary, vectorizer: Vectorizer) -> SparseCounts:
    """Return how often each term of the vocabulary stands in each text."""
    terms = build_matcher(vocabulary.terms, vectorizer)
    coded = encode_known(texts, vectorizer.analyzer, terms.units)
    return SparseCounts(*counting.count_matrix(coded, len(texts), terms))


def apply_weighting(counts: SparseCounts, vocabulary: NgramVocabulary, vectorizer: Vectorizer) -> SparseCounts:
    """Return the counts themselves, or tf-idf rows of Euclidean length 1 as TfidfVectorizer's defaults give."""
    if vectorizer.weighting == "count":
        return counts
    values = counts.values * vocabulary.idf[counts.columns]
    rows = counts.rows()
    lengths = np.sqrt(np.bincount(rows, weights=values**2, minlength=len(counts.offsets) - 1))
    return SparseCounts(counts.offsets, counts.columns, values / lengths[rows])


def take_rows(counts: SparseCounts, rows: Ints) -> SparseCounts:
    """Return rows in this order. A row may be taken several times."""
    lengths = np.diff(counts.offsets)[rows]
    offsets = np.concatenate([[0], lengths.cumsum()])
    entries = np.arange(offsets[-1]) + np.repeat(counts.offsets[rows] - offsets[:-1], lengths)
    return SparseCounts(offsets, counts.columns[entries], counts.values[entries])
