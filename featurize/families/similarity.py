"""TF-IDF: how alike prompt and answers are in the words that tell texts apart, and how rare an answer's words are.

Words are numbered by hashing, as in scikit-learn's HashingVectorizer: a shared rare word says most, and a vocabulary
would have to leave out the rare ones or grow with the data.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurize.columns import Column, Feature, columns_of
from votes.schema import TEXTS

if TYPE_CHECKING:
    from featurize.ngrams.tokenize import Ints
    from featurize.text import Distinct, Text

# Part of the fingerprint: raise it when the same texts give other numbers.
VERSION = 3
BUCKETS = 1 << 18  # two words of a text of 500 share one with a probability of 0.2% each

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
SPECIFICITY = (
    Feature("mean_idf", "idf", "inverse document frequency of the answer's words, on average"),
    Feature("mean_new_idf", "idf", "the same of its distinct words that are not in the prompt"),
)


def cosine_columns(family: str, what: str) -> list[Column]:
    """The columns of cosines between the three texts of a record: of each answer to the prompt, and to each other."""
    return [
        *(
            Column(family, "to_prompt", "a" if side == "A" else "b", "cosine", f"{what} of prompt and {side}")
            for side in "AB"
        ),
        Column(family, "to_prompt", "difference", "cosine", f"{what}: prompt and A minus prompt and B"),
        Column(family, "of_answers", "pair", "cosine", f"{what} of A and B"),
    ]


def arrange_cosines(to_a: Floats, to_b: Floats, of_answers: Floats) -> Floats:
    """The values (n, 4) of `cosine_columns`, from three cosines (n,) each."""
    return np.stack([to_a, to_b, to_a - to_b, of_answers], axis=1).astype(np.float32)


def columns() -> list[Column]:
    """The columns that `featurize` makes."""
    cosines = cosine_columns("similarity", "TF-IDF cosine of the words")
    return [*cosines, *columns_of("similarity", SPECIFICITY, ("a", "b", "difference", "ratio"))]


def document_counts(distinct: Distinct) -> Ints:
    """In how many of a shard's texts, prompts and answers alike, each bucket's words stand: (BUCKETS,)."""
    _, texts, weights = distinct.used_by(("prompt", "response_a", "response_b"))
    offsets, buckets, _ = _bucket_words(texts)
    text_of = np.repeat(np.arange(len(texts)), np.diff(offsets))
    pairs = np.unique(text_of * BUCKETS + buckets)
    counts = np.bincount(pairs % BUCKETS, weights=weights[pairs // BUCKETS], minlength=BUCKETS)
    return counts.astype(np.int64)


@dataclass(frozen=True)
class Rarity:
    """How rare the words of each bucket are in the training texts."""

    idf: Doubles  # (BUCKETS,) ln((1 + texts) / (1 + counts)) + 1, as scikit-learn's TfidfTransformer by default
    # (BUCKETS,) The same as if no word stood in fewer than two texts: a training text's own words would else be more
    # common than those of a text that was not counted.
    capped: Doubles

    @classmethod
    def of(cls, counts: Ints, texts: int) -> Rarity:
        """The rarity of words that stand in `counts` (BUCKETS,) of so many texts."""

        def idf(counts: Ints) -> Doubles:
            frequencies: Doubles = np.log((1 + texts) / (1 + counts)) + 1
            return frequencies

        return cls(idf(counts), idf(np.maximum(counts, 2)))


def featurize(distinct: Distinct, rarity: Rarity) -> Floats:
    """The features (n, 12) of the records behind `distinct`; 0 where a text has no word."""
    import scipy.sparse

    offsets, buckets, counts = _bucket_words(distinct.texts)
    shape = (len(distinct.texts), BUCKETS)
    times = scipy.sparse.csr_array((counts, buckets, offsets), shape=shape)
    times.sum_duplicates()
    rows = times.copy()
    rows.data *= rarity.idf[rows.indices]
    lengths = np.sqrt((rows * rows).sum(axis=1))
    rows.data /= np.repeat(lengths, np.diff(rows.indptr))
    prompt, a, b = (rows[distinct.index[part]] for part in TEXTS)
    to_a, to_b, of_answers = ((one * other).sum(axis=1) for one, other in ((prompt, a), (prompt, b), (a, b)))

    capped = times.copy()
    capped.data = rarity.capped[capped.indices]
    once = times.copy()
    once.data = np.ones_like(once.data)
    mean = _ratio((times * capped).sum(axis=1), times.sum(axis=1))
    asked = once[distinct.index["prompt"]]

    def specificity(part: str) -> Doubles:
        words, rare = once[distinct.index[part]], capped[distinct.index[part]]
        new = _ratio(rare.sum(axis=1) - (rare * asked).sum(axis=1), words.sum(axis=1) - (words * asked).sum(axis=1))
        return np.stack([mean[distinct.index[part]], new], axis=1)

    of_a, of_b = specificity("response_a"), specificity("response_b")
    difference = of_a - of_b
    return np.concatenate(
        [
            arrange_cosines(to_a, to_b, of_answers),
            *(each.astype(np.float32) for each in (of_a, of_b, difference, difference / (of_a + of_b + 1))),
        ],
        axis=1,
    )


def _ratio(sums: Doubles, counts: Doubles) -> Doubles:
    """Sums per count, 0 where nothing was counted."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), 0.0)


def _bucket_words(texts: Sequence[Text]) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """For each text its distinct words' buckets and counts, one text after the other: offsets, buckets, counts."""
    bucket: dict[str, int] = {}
    for text in texts:
        for word in text.word_counts:
            if word not in bucket:
                bucket[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS
    offsets = np.cumsum([0, *(len(text.word_counts) for text in texts)])
    buckets = np.fromiter((bucket[word] for text in texts for word in text.word_counts), np.int64, offsets[-1])
    counts = np.fromiter((count for text in texts for count in text.word_counts.values()), np.float64, offsets[-1])
    return offsets, buckets, counts


def vector_cosines(prompt: Floats, a: Floats, b: Floats) -> Floats:
    """The cosines (n, 4) of vectors (n, d) of the prompts and answers; 0 where one of the two is zero."""
    prompt, a, b = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        for vectors in (prompt, a, b)
    )
    return arrange_cosines(*((one * other).sum(axis=1) for one, other in ((prompt, a), (prompt, b), (a, b))))
