"""Word2Vec trained by gensim on the training records, and texts as the mean of their words' vectors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from core.registry import FAMILIES
from core.settings.base import PositiveInt
from core.settings.features import FamilyEntry, PairView
from featurize.blocks import Block, VectorBlock, vector_cosines, vectors_from_lists, vectors_to_lists
from featurize.family import FeatureFamily

if TYPE_CHECKING:
    from core.arrays import Floats
    from core.storage import Folder
    from featurize.outputs import Output
    from featurize.text import DistinctTexts, Text

_LINE_WORDS = 10_000  # gensim drops what a line has beyond this (MAX_WORDS_IN_BATCH)
_SIDES = {"prompt": "prompt", "a": "response_a", "b": "response_b"}


class Word2VecSettings(FamilyEntry):
    """Word vectors that gensim trains. The defaults are those of the published recipe."""

    columns_only: ClassVar[frozenset[str]] = frozenset({"view", "cosines"})

    family: Literal["word2vec"] = Field(default="word2vec", description="Name of the feature family.")
    dimensions: PositiveInt = Field(default=300, description="Length of a vector; gensim's vector_size.")
    window: PositiveInt = Field(default=5, description="Distance in words between a word and those it predicts.")
    epochs: PositiveInt = Field(default=10, description="Passes over the training texts.")
    min_count: PositiveInt = Field(default=1, description="Occurrences from which a word gets a vector.")
    view: PairView = Field(default="pair", description="Columns for each answer (pair), or for A minus B (difference).")
    cosines: bool = Field(default=True, description="Whether boosters also see the cosines of the mean vectors.")


@dataclass(frozen=True)
class WordVectors:
    """The words of a trained model, most frequent first, and a vector for each."""

    words: pa.StringArray
    vectors: Floats  # (words, dimensions)


@FAMILIES.register
class Word2VecFamily(FeatureFamily):
    """The mean of a text's word vectors, and cosines between the texts of a record."""

    name = "word2vec"
    summary = "vectors trained by gensim on the training records, averaged over a text; cosines"
    version = 1
    settings = Word2VecSettings
    libraries = ("gensim",)
    fitted_file = "vectors.parquet"
    fits_on_stream = True

    def depends_on(self, entry: FamilyEntry, seed: int) -> object:
        """Return the settings and the seed."""
        return {"seed": seed, **entry.file_settings()}

    def block(self, entry: FamilyEntry, output: Output, folder: Folder) -> Block:
        """Return the cosines and one column for each view and dimension."""
        settings = cast("Word2VecSettings", entry)
        return VectorBlock(
            output.folder,
            entry.entry_name,
            "mean word vector",
            settings.dimensions,
            settings.view,
            settings.cosines,
        )

    def fit(self, entry: FamilyEntry, texts: Iterator[Text], seed: int, on_step: Callable[[int], None]) -> pa.Table:
        """Return the words and their vectors."""
        model = train_word_vectors(texts, cast("Word2VecSettings", entry), seed, on_step)
        return pa.table({"word": model.words, "vector": vectors_to_lists(model.vectors)})

    def fit_steps(self, entry: FamilyEntry) -> tuple[str, int]:
        """Return the number of epochs."""
        return "Word2Vec epochs", cast("Word2VecSettings", entry).epochs

    def read_fitted(self, output: Output, folder: Folder) -> WordVectors:
        """Return the word vectors."""
        table = output.read_fitted_table(folder)
        return WordVectors(table["word"].combine_chunks(), vectors_from_lists(table["vector"]))

    def transform(self, distinct: DistinctTexts, entry: FamilyEntry, fitted: Any) -> Mapping[str, Any]:  # noqa: ANN401
        """Return the cosines (n, 4), and the mean vectors of the three texts (n, dimensions)."""
        means = mean_vectors(distinct.texts, fitted)
        vectors = {side: means[distinct.index[part]] for side, part in _SIDES.items()}
        cosines = vectors_to_lists(vector_cosines(*vectors.values()))
        return {"cosines": cosines, **{side: vectors_to_lists(side_vectors) for side, side_vectors in vectors.items()}}


def train_word_vectors(
    texts: Iterable[Text],
    settings: Word2VecSettings,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> WordVectors:
    """Train on a stream of texts, which is read once. `on_epoch` gets the number of finished epochs.

    Words are written to a temporary file, one text a line, which gensim reads in every epoch without Python. This is as
    fast as sentences in memory, and memory does not grow with their number. Training takes one thread: with several the
    vectors would depend on timing. Raises ValueError if no word occurs min_count times.
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
        empty = True
        with open(corpus, "w", encoding="utf-8") as file:
            for text in texts:
                for start in range(0, len(text.words), _LINE_WORDS):
                    empty = False
                    file.write(" ".join(text.words[start : start + _LINE_WORDS]) + "\n")
        if empty:
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
    """Return the mean vector (texts, dimensions) of each text's known words; zeros without known words."""
    import scipy.sparse

    distinct: dict[str, int] = {}
    for text in texts:
        for word in text.word_counts:
            distinct.setdefault(word, len(distinct))
    # Arrow looks up the words of a shard without making a Python string of each word of the model.
    numbers_in_model = pc.index_in(pa.array(distinct, pa.string()), value_set=model.words).fill_null(-1).to_numpy()
    offsets = np.cumsum([0, *(len(text.word_counts) for text in texts)])
    numbers = np.fromiter((distinct[word] for text in texts for word in text.word_counts), np.int64, offsets[-1])
    counts = np.fromiter((count for text in texts for count in text.word_counts.values()), np.float32, offsets[-1])
    columns = numbers_in_model[numbers] if len(numbers_in_model) else numbers
    counts[columns < 0] = 0
    # As a sparse product: gathering the vectors of every word first would take 1.2 kB a word.
    shape = (len(texts), len(model.vectors))
    matrix = scipy.sparse.csr_array((counts, np.maximum(columns, 0), offsets), shape=shape)
    means: Floats = matrix @ model.vectors
    means /= np.maximum(matrix.sum(axis=1), 1).astype(np.float32)[:, None]
    return means
