"""Word2Vec trained by gensim on the training records, and texts as the mean of their words' vectors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from featurize.text import Text

# Part of the fingerprint: raise it when the same settings give other vectors.
VERSION = 1
_LINE_WORDS = 10_000  # gensim leaves out what a line has beyond this (MAX_WORDS_IN_BATCH)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Word2VecSettings:
    """gensim's parameters of the same names; the defaults are those of the published recipe."""

    dimensions: int = 300
    window: int = 5
    epochs: int = 10
    min_count: int = 1


@dataclass(frozen=True)
class WordVectors:
    """The words of a trained model, most frequent first, and a vector for each."""

    words: pa.StringArray
    vectors: Floats  # (words, dimensions)


def train(
    texts: Iterable[Text], settings: Word2VecSettings, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None
) -> WordVectors:
    """Train on a stream of texts, which is read once; `on_epoch` hears of each finished epoch.

    The words go to a temporary file, one text a line, that gensim reads again in every epoch without Python's help: as
    fast as sentences held in memory, and memory does not grow with their number. One thread, because several would
    make the vectors depend on their timing. Raises ValueError if no word occurs min_count times.
    """
    from gensim.models import Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    class Epochs(CallbackAny2Vec):  # type: ignore[misc]
        def __init__(self) -> None:
            self.done = 0

        def on_epoch_end(self, model: object) -> None:
            self.done += 1
            on_epoch(self.done)

    with tempfile.TemporaryDirectory() as folder:
        corpus = os.path.join(folder, "corpus.txt")
        found = False
        with open(corpus, "w", encoding="utf-8") as file:
            for text in texts:
                for start in range(0, len(text.words), _LINE_WORDS):
                    found = True
                    file.write(" ".join(text.words[start : start + _LINE_WORDS]) + "\n")
        if not found:
            raise ValueError("the training records hold no word")
        model = Word2Vec(
            vector_size=settings.dimensions,
            window=settings.window,
            epochs=settings.epochs,
            min_count=settings.min_count,
            seed=seed,
            workers=1,
        )
        model.build_vocab(corpus_file=corpus)
        if not model.wv.index_to_key:
            raise ValueError(f"no word of the training records occurs {settings.min_count} times")
        model.train(
            corpus_file=corpus,
            total_examples=model.corpus_count,
            total_words=model.corpus_total_words,
            epochs=settings.epochs,
            callbacks=[Epochs()],
        )
    return WordVectors(pa.array(model.wv.index_to_key, pa.string()), np.asarray(model.wv.vectors, np.float32))


def mean_vectors(texts: Sequence[Text], model: WordVectors) -> Floats:
    """The mean vector (texts, dimensions) of each text's known words; zeros where there are none."""
    import scipy.sparse

    distinct: dict[str, int] = {}
    for text in texts:
        for word in text.word_counts:
            distinct.setdefault(word, len(distinct))
    # Arrow finds the words of a shard without making a Python string of each word of the model.
    found = pc.index_in(pa.array(distinct, pa.string()), value_set=model.words).fill_null(-1).to_numpy()
    offsets = np.cumsum([0, *(len(text.word_counts) for text in texts)])
    numbers = np.fromiter((distinct[word] for text in texts for word in text.word_counts), np.int64, offsets[-1])
    counts = np.fromiter((count for text in texts for count in text.word_counts.values()), np.float32, offsets[-1])
    columns = found[numbers] if len(found) else numbers
    counts[columns < 0] = 0
    # As a sparse product: gathering the vectors of every word first would take 1.2 kB a word.
    shape = (len(texts), len(model.vectors))
    matrix = scipy.sparse.csr_array((counts, np.maximum(columns, 0), offsets), shape=shape)
    means: Floats = matrix @ model.vectors
    means /= np.maximum(matrix.sum(axis=1), 1).astype(np.float32)[:, None]
    return means
