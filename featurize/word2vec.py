"""Word2Vec trained by gensim on the training records, and texts as the mean of their words' vectors."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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

    words: Sequence[str]
    vectors: Floats  # (words, dimensions)


def train(
    texts: Iterable[Text], settings: Word2VecSettings, seed: int, on_epoch: Callable[[int], None] = lambda epoch: None
) -> WordVectors:
    """Train on a stream of texts, which is read once; `on_epoch` hears of each finished epoch.

    The words go to a temporary file, one text a line, that gensim reads again in every epoch without Python's help: as
    fast as sentences held in memory, and memory does not grow with their number. One thread, because several would
    make the vectors depend on their timing. Raises ValueError if no word reaches min_count.
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
            corpus_file=corpus,
            vector_size=settings.dimensions,
            window=settings.window,
            epochs=settings.epochs,
            min_count=settings.min_count,
            seed=seed,
            workers=1,
            callbacks=[Epochs()],
        )
    return WordVectors(model.wv.index_to_key, np.asarray(model.wv.vectors, np.float32))


class Pooler:
    """Means of word vectors. Making one costs a dictionary of all words; use it for many texts."""

    def __init__(self, model: WordVectors) -> None:
        self._vectors = model.vectors
        self._number = functools.partial(dict(zip(model.words, range(len(model.words)), strict=True)).get)

    def means(self, texts: Sequence[Text]) -> Floats:
        """The mean vector (texts, dimensions) of each text's known words; zeros where there are none."""
        import scipy.sparse

        numbers = [[n for n in map(self._number, text.words) if n is not None] for text in texts]
        offsets = np.concatenate([[0], np.cumsum([len(some) for some in numbers])])
        columns = np.fromiter((n for some in numbers for n in some), np.int64, offsets[-1])
        # As a sparse product: gathering the vectors of every word first would take 1.2 kB a word.
        counts = scipy.sparse.csr_array(
            (np.ones(len(columns), np.float32), columns, offsets), shape=(len(texts), len(self._vectors))
        )
        means: Floats = counts @ self._vectors
        means /= np.maximum(np.diff(offsets), 1)[:, None].astype(np.float32)
        return means
