"""TF-IDF cosines: how alike prompt and answers are in the words that tell texts apart.

Words are numbered by hashing, as in scikit-learn's HashingVectorizer: a shared rare word says most, and a vocabulary
would have to leave out the rare ones or grow with the data.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from featurize.catalogue import Column
from featurize.coding import Ints
from featurize.text import Distinct, Text

# Part of the fingerprint: raise it when the same texts give other numbers.
VERSION = 2
BUCKETS = 1 << 18  # two words of a text of 500 share one with a probability of 0.2% each

Floats = npt.NDArray[np.float32]


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
    """The columns that `cosines` makes."""
    return cosine_columns("similarity", "TF-IDF cosine of the words")


def document_counts(distinct: Distinct) -> Ints:
    """In how many of a shard's texts, prompts and answers alike, each bucket's words stand: (BUCKETS,)."""
    _, texts, weights = distinct.used_by(("prompt", "response_a", "response_b"))
    offsets, buckets, _ = _bucket_words(texts)
    text_of = np.repeat(np.arange(len(texts)), np.diff(offsets))
    pairs = np.unique(text_of * BUCKETS + buckets)
    counts = np.bincount(pairs % BUCKETS, weights=weights[pairs // BUCKETS], minlength=BUCKETS)
    return counts.astype(np.int64)


def inverse_document_frequency(counts: Ints, texts: int) -> npt.NDArray[np.float64]:
    """ln((1 + texts) / (1 + counts)) + 1, as scikit-learn's TfidfTransformer smooths it by default."""
    frequencies: npt.NDArray[np.float64] = np.log((1 + texts) / (1 + counts)) + 1
    return frequencies


def cosines(distinct: Distinct, idf: npt.NDArray[np.float64]) -> Floats:
    """The cosines (n, 4) of the records behind `distinct`; 0 where a text has no word."""
    import scipy.sparse

    offsets, buckets, counts = _bucket_words(distinct.texts)
    rows = scipy.sparse.csr_array((counts * idf[buckets], buckets, offsets), shape=(len(distinct.texts), BUCKETS))
    rows.sum_duplicates()
    lengths = np.sqrt((rows * rows).sum(axis=1))
    rows.data /= np.repeat(lengths, np.diff(rows.indptr))
    prompt, a, b = (rows[distinct.index[part]] for part in ("prompt", "response_a", "response_b"))
    to_a, to_b, of_answers = ((one * other).sum(axis=1) for one, other in ((prompt, a), (prompt, b), (a, b)))
    return arrange_cosines(to_a, to_b, of_answers)


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
