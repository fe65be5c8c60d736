"""TF-IDF cosines: how alike prompt and answers are in the words that tell texts apart."""

import numpy as np
import numpy.typing as npt

from featurize import ngrams
from featurize.catalogue import Column
from featurize.text import Distinct

# Part of the fingerprint: raise it when the same vocabulary gives other numbers.
VERSION = 1
# One vocabulary for prompts and answers, of words that at least one text in a thousand has.
VOCABULARY = ngrams.NgramSettings("word", (1, 1), "tfidf", min_df=0.001, max_features=50_000)

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


def cosines(distinct: Distinct, vocabulary: ngrams.Vocabulary) -> Floats:
    """The cosines (n, 4) of the records behind `distinct`; 0 where a text has no word of the vocabulary."""
    import scipy.sparse

    counts = ngrams.count(distinct.texts, vocabulary, VOCABULARY)
    weighed = ngrams.weigh(counts, vocabulary, VOCABULARY)
    rows = scipy.sparse.csr_array(
        (weighed.values, weighed.columns, weighed.offsets), shape=(len(distinct.texts), len(vocabulary.terms))
    )
    prompt, a, b = (rows[distinct.index[part]] for part in ("prompt", "response_a", "response_b"))
    to_a, to_b, of_answers = ((one * other).sum(axis=1) for one, other in ((prompt, a), (prompt, b), (a, b)))
    return arrange_cosines(to_a, to_b, of_answers)


def vector_cosines(prompt: Floats, a: Floats, b: Floats) -> Floats:
    """The cosines (n, 4) of vectors (n, d) of the prompts and answers; 0 where one of the two is zero."""
    prompt, a, b = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        for vectors in (prompt, a, b)
    )
    return arrange_cosines(*((one * other).sum(axis=1) for one, other in ((prompt, a), (prompt, b), (a, b))))
