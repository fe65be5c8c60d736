import numpy as np
import pyarrow as pa
import pytest

from featurize.families.word2vec import Word2VecSettings, WordVectors, mean_vectors, train_word_vectors
from featurize.text import Text

CORPUS = [
    Text([f"the {a} {b} of {c}"]) for a in ("red", "blue") for b in ("king", "queen") for c in ("hearts", "clubs")
] * 20
SMALL = Word2VecSettings(dimensions=8, window=2, epochs=3, min_count=1)


def test_words_and_their_order_are_gensims():
    """The vectors are not, to the bit: gensim draws other random numbers when it reads a file."""
    from gensim.models import Word2Vec

    epochs: list[int] = []
    ours = train_word_vectors(iter(CORPUS), SMALL, seed=3, on_epoch=epochs.append)
    reference = Word2Vec([text.words for text in CORPUS], vector_size=8, min_count=1, seed=3, workers=1)
    assert epochs == [1, 2, 3]
    assert ours.words.to_pylist() == reference.wv.index_to_key
    assert ours.vectors.shape == (len(ours.words), 8)


def test_words_in_the_same_company_become_alike():
    model = train_word_vectors(CORPUS * 20, Word2VecSettings(dimensions=8, window=2, epochs=20, min_count=1), seed=3)
    vectors = dict(zip(model.words.to_pylist(), model.vectors, strict=True))

    def cosine(one, other):
        one, other = vectors[one], vectors[other]
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    assert cosine("red", "blue") > cosine("red", "clubs") + 0.3


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    one, again, other = (train_word_vectors(CORPUS, SMALL, seed).vectors.tobytes() for seed in (3, 3, 4))
    assert one == again != other


def test_words_beyond_gensims_limit_of_a_line_are_learned():
    long = Text(["first " * 10_000 + "last"])
    assert set(train_word_vectors([long], SMALL, seed=1).words.to_pylist()) == {"first", "last"}


def test_texts_without_words_are_refused():
    with pytest.raises(ValueError, match="no word"):
        train_word_vectors([Text([None]), Text(["!"])], SMALL, seed=1)
    with pytest.raises(ValueError, match="occurs 9 times"):
        train_word_vectors([Text(["a b"])], Word2VecSettings(dimensions=8, window=2, epochs=1, min_count=9), seed=1)


def test_means_leave_out_unknown_words():
    vectors = np.array([[1, 0], [0, 3]], np.float32)
    means = mean_vectors([Text(["a b b x"]), Text(["x"]), Text([None])], WordVectors(pa.array(["a", "b"]), vectors))
    assert np.allclose(means, np.array([[1 / 3, 2], [0, 0], [0, 0]]))
