"""Compare prompt and answers by TF-IDF, and measure how rare an answer's words are.

Words are numbered by hashing, as in scikit-learn's HashingVectorizer. Shared rare words are the strongest signal. A
vocabulary would have to drop rare words, or grow with the data.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.registry import FAMILIES
from featurize.blocks import Block, Column, Feature, PlainBlock, cosine_columns, stack_cosines, view_columns
from featurize.family import FeatureFamily, TrainingCounter
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.arrays import Doubles, Floats, Ints
    from core.settings.features import FamilyEntry
    from core.storage import Folder
    from featurize.outputs import Output
    from featurize.text import DistinctTexts, Text

HASH_BUCKETS = 1 << 18  # two words of a text of 500 share one with a probability of 0.2% each
_SPECIFICITY = (
    Feature("mean_idf", "idf", "inverse document frequency of the answer's words, on average"),
    Feature("mean_new_idf", "idf", "the same of its distinct words that are not in the prompt"),
)


@dataclass(frozen=True)
class WordRarity:
    """How rare the words of each bucket are in the training texts."""

    idf: Doubles  # (HASH_BUCKETS,) ln((1 + texts) / (1 + counts)) + 1, as scikit-learn's TfidfTransformer by default
    # (HASH_BUCKETS,) The same as if every word occurred in at least two texts. Otherwise a training text's own words
    # would be more common than the words of a new text.
    capped: Doubles

    @classmethod
    def of(cls, counts: Ints, texts: int) -> WordRarity:
        """Return the rarity of words that stand in `counts` (HASH_BUCKETS,) of so many texts."""

        def idf(counts: Ints) -> Doubles:
            frequencies: Doubles = np.log((1 + texts) / (1 + counts)) + 1
            return frequencies

        return cls(idf(counts), idf(np.maximum(counts, 2)))


@FAMILIES.register
class SimilarityFamily(FeatureFamily):
    """Cosines of prompt and answers, and the rarity of the answers' words."""

    name = "similarity"
    summary = "TF-IDF cosines of prompt and answers; how rare an answer's words are, and those not in the prompt"
    version = 3
    position = 9
    is_plain = True
    fitted_file = "idf.parquet"

    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return 4 columns of cosines and 8 of rarity."""
        return PlainBlock(output.folder, _columns(entry.entry_name))

    def read_fitted(self, output: Output, folder: Folder) -> WordRarity:
        """Return how rare words are."""
        table = output.read_fitted_table(folder)
        return WordRarity(table["idf"].to_numpy(), table["capped"].to_numpy())

    def transform(self, distinct: DistinctTexts, entry: FamilyEntry, fitted: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return one array (n,) for each column."""
        values = similarity_matrix(distinct, fitted)
        return {column.name: values[:, n] for n, column in enumerate(_columns(entry.entry_name))}

    def counters(self, outputs: Sequence[Output]) -> list[TrainingCounter]:
        """Return a counter of the texts that words stand in."""
        return [WordCounter(outputs)] if outputs else []


class WordCounter(TrainingCounter):
    """Counts in how many texts, prompts and answers alike, the words of each bucket stand."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = list(outputs)

    @property
    def outputs(self) -> Sequence[Output]:
        """The outputs that need to know how rare words are."""
        return self._outputs

    def report(self, distinct: DistinctTexts) -> tuple[int, Ints]:
        """Return the number of texts, and in how many of them the words of each bucket stand."""
        return sum(len(distinct.index[part]) for part in TEXTS), document_counts(distinct)

    def merge(self, *reports: tuple[int, Ints]) -> tuple[int, Ints]:
        """Return the sums."""
        return sum(texts for texts, _ in reports), np.sum([counts for _, counts in reports], axis=0)

    def write(self, merged: tuple[int, Ints], exact: None, output: Output, target: Folder) -> str:
        """Write the rarity of words."""
        texts, counts = merged
        rarity = WordRarity.of(counts, texts)
        output.write_fitted_table(target, pa.table({"idf": rarity.idf, "capped": rarity.capped}))
        return f"{output.folder}: word frequencies of {texts:,} texts"


def _columns(name: str) -> list[Column]:
    cosines = cosine_columns(name, "TF-IDF cosine of the words")
    return [*cosines, *view_columns(name, _SPECIFICITY, ("a", "b", "difference", "ratio"))]


def document_counts(distinct: DistinctTexts) -> Ints:
    """Return in how many of a shard's texts, prompts and answers alike, each bucket's words stand: (HASH_BUCKETS,)."""
    _, texts, weights = distinct.used_by(TEXTS)
    offsets, buckets, _ = _bucket_words(texts)
    text_of = np.repeat(np.arange(len(texts)), np.diff(offsets))
    pairs = np.unique(text_of * HASH_BUCKETS + buckets)
    counts = np.bincount(pairs % HASH_BUCKETS, weights=weights[pairs // HASH_BUCKETS], minlength=HASH_BUCKETS)
    return counts.astype(np.int64)


def similarity_matrix(distinct: DistinctTexts, rarity: WordRarity) -> Floats:
    """Return the features (n, 12) of the records behind `distinct`; 0 where a text has no word."""
    import scipy.sparse

    offsets, buckets, counts = _bucket_words(distinct.texts)
    shape = (len(distinct.texts), HASH_BUCKETS)
    times = scipy.sparse.csr_array((counts, buckets, offsets), shape=shape)
    times.sum_duplicates()
    rows = times.copy()
    rows.data *= rarity.idf[rows.indices]
    lengths = np.sqrt((rows * rows).sum(axis=1))
    rows.data /= np.repeat(lengths, np.diff(rows.indptr))
    prompt, a, b = (rows[distinct.index[part]] for part in TEXTS)
    to_a, to_b, of_answers = ((left * right).sum(axis=1) for left, right in ((prompt, a), (prompt, b), (a, b)))

    capped = times.copy()
    capped.data = rarity.capped[capped.indices]
    once = times.copy()
    once.data = np.ones_like(once.data)
    mean = _ratio((times * capped).sum(axis=1), times.sum(axis=1))
    prompt_words = once[distinct.index["prompt"]]

    def specificity(part: str) -> Doubles:
        words, rare = once[distinct.index[part]], capped[distinct.index[part]]
        new_rarity = rare.sum(axis=1) - (rare * prompt_words).sum(axis=1)
        new_words = words.sum(axis=1) - (words * prompt_words).sum(axis=1)
        return np.stack([mean[distinct.index[part]], _ratio(new_rarity, new_words)], axis=1)

    of_a, of_b = specificity("response_a"), specificity("response_b")
    difference = of_a - of_b
    views = (of_a, of_b, difference, difference / (of_a + of_b + 1))
    return np.concatenate([stack_cosines(to_a, to_b, of_answers), *(view.astype(np.float32) for view in views)], axis=1)


def _ratio(sums: Doubles, counts: Doubles) -> Doubles:
    """Return sums per count, 0 where nothing was counted."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), 0.0)


def _bucket_words(texts: Sequence[Text]) -> tuple[Ints, Ints, Doubles]:
    """Return each text's distinct words' buckets and counts, one text after the other: offsets, buckets, counts."""
    bucket: dict[str, int] = {}
    for text in texts:
        for word in text.word_counts:
            if word not in bucket:
                bucket[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) % HASH_BUCKETS
    offsets = np.cumsum([0, *(len(text.word_counts) for text in texts)])
    buckets = np.fromiter((bucket[word] for text in texts for word in text.word_counts), np.int64, offsets[-1])
    counts = np.fromiter((count for text in texts for count in text.word_counts.values()), np.float64, offsets[-1])
    return offsets, buckets, counts
