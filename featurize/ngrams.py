"""Word and character n-grams: a vocabulary fitted on shards and merged, and sparse blocks made with it.

Tokenising and counting are scikit-learn's; only the fit is taken apart, so that shards can be counted in parallel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from preference.errors import InputError

# Part of the fingerprint of n-gram files: raise it when the same settings give other numbers.
VERSION = 1


@dataclass(frozen=True)
class NgramSettings:
    """One block: what is counted, and which terms are kept. The names are scikit-learn's."""

    analyzer: Literal["word", "char", "char_wb"]
    ngram_range: tuple[int, int]
    weighting: Literal["count", "tfidf"]
    min_df: float
    max_features: int


@dataclass(frozen=True)
class Vocabulary:
    """The terms of a block in order, and the inverse document frequency of each."""

    terms: list[str]
    idf: npt.NDArray[np.float64]


def _vectorizer(settings: NgramSettings, **options: Any) -> Any:  # noqa: ANN401 - scikit-learn has no types
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(analyzer=settings.analyzer, ngram_range=settings.ngram_range, **options)


def count_terms(texts: Sequence[str], settings: NgramSettings) -> pa.Table:
    """Document frequency and total count of every term in some texts: columns term, documents, total."""
    vectorizer = _vectorizer(settings)
    try:
        counts = vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's "empty vocabulary": no text of this shard has a term
        return pa.table({"term": pa.array([], pa.string()), "documents": np.zeros(0, int), "total": np.zeros(0, int)})
    return pa.table(
        {
            "term": pa.array(vectorizer.get_feature_names_out().tolist(), pa.string()),
            "documents": np.bincount(counts.indices, minlength=counts.shape[1]),
            "total": np.asarray(counts.sum(axis=0)).ravel(),
        }
    )


def merge_counts(*tables: pa.Table) -> pa.Table:
    """The counts of several shards together."""
    merged = pa.concat_tables(tables).group_by("term").aggregate([("documents", "sum"), ("total", "sum")])
    return merged.rename_columns({"documents_sum": "documents", "total_sum": "total"})


def choose_vocabulary(counts: pa.Table, texts: int, settings: NgramSettings) -> Vocabulary:
    """The terms that scikit-learn would keep of `texts` documents, and their smoothed inverse document frequencies.

    Terms in fewer than min_df of the texts go first, then all but the max_features most frequent. The argsort on
    alphabetically ordered terms is the one in CountVectorizer._limit_features, so that ties fall the same way. idf is
    ln((1 + texts) / (1 + documents)) + 1, as in TfidfTransformer with its default smoothing. Raises InputError if no
    term is left.
    """
    counts = counts.sort_by("term")
    counts = counts.filter(pc.greater_equal(counts["documents"], settings.min_df * texts))
    kept = np.sort((-counts["total"].to_numpy()).argsort()[: settings.max_features])
    counts = counts.take(pa.array(kept))
    if not len(counts):
        raise InputError(
            f"no term stands in at least {settings.min_df:.2%} of the {texts} texts",
            where="featurize.ngrams",
            fix="lower min_df, or leave this block out.",
        )
    idf = np.log((1 + texts) / (1 + counts["documents"].to_numpy())) + 1
    return Vocabulary(counts["term"].to_pylist(), idf)


def transform(texts: Sequence[str], vocabulary: Vocabulary, settings: NgramSettings) -> pa.ListArray:
    """One sparse row per text, as a list of structs (index int32, value float32) in index order.

    Values are counts, or tf-idf of Euclidean length 1 as TfidfVectorizer's defaults give.
    """
    from sklearn.preprocessing import normalize

    counts = _vectorizer(settings, vocabulary=vocabulary.terms, dtype=np.float64).transform(texts)
    if settings.weighting == "tfidf":
        counts.data *= vocabulary.idf[counts.indices]
        counts = normalize(counts, copy=False)
    counts.sort_indices()
    entries = pa.StructArray.from_arrays(
        [pa.array(counts.indices.astype(np.int32)), pa.array(counts.data.astype(np.float32))], ["index", "value"]
    )
    return pa.ListArray.from_arrays(pa.array(counts.indptr.astype(np.int32)), entries)


def to_dense(rows: pa.ListArray, width: int) -> npt.NDArray[np.float32]:
    """The dense block (n, width) of sparse rows as made by `transform`."""
    dense = np.zeros((len(rows), width), dtype=np.float32)
    entries = rows.flatten()
    of_row = np.repeat(np.arange(len(rows)), rows.value_lengths().to_numpy())
    dense[of_row, entries.field("index").to_numpy()] = entries.field("value").to_numpy()
    return dense
