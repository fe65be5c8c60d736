import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from featurize import text_families
from featurize.blocks import Layout, NgramBlock, PlainBlock, VectorBlock, from_lists, to_lists
from featurize.families import similarity
from featurize.families.similarity import vector_cosines
from featurize.families.word2vec import WordVectors, mean_vectors
from featurize.ngrams import vectorize
from featurize.text import Distinct
from tests.helpers.tables import ROWS, records
from votes.swap import swap_records

WORDS = ["red", "blue", "tall", "sky"]
COUNT = vectorize.NgramSettings("word", (1, 1), "count", min_df=0.0, max_features=100)
TFIDF = vectorize.NgramSettings("char", (1, 2), "tfidf", min_df=0.0, max_features=100)
VOCABULARY = vectorize.Vocabulary(WORDS, np.array([1.0, 2.0, 1.5, 3.0]))
CHARACTERS = vectorize.Vocabulary([" ", "a", "e", "ed", "bl", "s"], np.linspace(1, 2, 6))
VECTORS = WordVectors(pa.array(WORDS), np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32))
RARITY = similarity.Rarity.of(np.arange(similarity.BUCKETS) % 50, 100)
SIDES = {"prompt": "prompt", "a": "response_a", "b": "response_b"}


def layout(view):
    return Layout(
        [
            PlainBlock("handmade", text_families.columns(list(text_families.FAMILIES))),
            PlainBlock("similarity", similarity.columns()),
            NgramBlock("q", "prompt", "pair", WORDS),
            NgramBlock("r", "response", view, WORDS),
            NgramBlock("c", "response", view, CHARACTERS.terms),
            VectorBlock("word2vec", "word2vec", "mean word vector", 5, view),
        ]
    )


def sparse(distinct, vocabulary, wanted, sides):
    counts = vectorize.weigh(vectorize.count(distinct.texts, vocabulary, wanted), vocabulary, wanted)
    return pa.table({side: vectorize.to_arrow(vectorize.take(counts, distinct.index[SIDES[side]])) for side in sides})


def matrix(table, view):
    distinct = Distinct.of(table)
    made = {"handmade": text_families.featurize(distinct, list(text_families.FAMILIES))}
    made["similarity"] = similarity.featurize(distinct, RARITY)
    named = {"handmade": text_families.columns(list(text_families.FAMILIES)), "similarity": similarity.columns()}
    means = mean_vectors(distinct.texts, VECTORS)
    vectors = {side: means[distinct.index[part]] for side, part in SIDES.items()}
    tables = {
        **{
            folder: pa.table({column.name: made[folder][:, n] for n, column in enumerate(columns)})
            for folder, columns in named.items()
        },
        "ngrams/q": sparse(distinct, VOCABULARY, COUNT, ["prompt"]),
        "ngrams/r": sparse(distinct, VOCABULARY, COUNT, ["a", "b"]),
        "ngrams/c": sparse(distinct, CHARACTERS, TFIDF, ["a", "b"]),
        "word2vec": pa.table(
            {"cosines": to_lists(vector_cosines(*vectors.values())), **{n: to_lists(v) for n, v in vectors.items()}}
        ),
    }
    return layout(view).dense(tables)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.sampled_from(["pair", "difference"]))
def test_a_swapped_records_row_follows_by_permutation_and_sign_in_every_family(rows, view):
    table = records(*rows)
    made = matrix(table, view)
    columns = layout(view).columns()
    assert made.shape == (len(rows), len(columns))
    assert len({column.name for column in columns}) == len(columns)
    assert np.isfinite(made).all()
    permutation, signs = layout(view).exchange()
    assert (made[:, permutation] * signs == matrix(swap_records(table), view)).all()
    assert (made[:, permutation][:, permutation] * signs * signs[permutation] == made).all()


def test_swapping_changes_what_it_should():
    table = records((["red sky"], ["blue sky"], ["tall"]), (["blue"], ["red red"], ["sky red"]))
    made = matrix(table, "pair")
    permutation, signs = layout("pair").exchange()
    changed = (made[:, permutation] * signs != made).any(axis=0)
    families = {column.family for column, moved in zip(layout("pair").columns(), changed, strict=True) if moved}
    assert {"length", "overlap", "similarity", "r", "word2vec"} <= families
    assert "q" not in families


def test_cosines_are_those_of_the_formula():
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = [(["red blue sky"], ["blue blue"], ["tall sky"]), (["sky"], ["red"], ["red red tall"])]
    texts = [turns[0] for row in rows for turns in row]
    theirs = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts).toarray()
    distinct = Distinct.of(records(*rows))
    rarity = similarity.Rarity.of(similarity.document_counts(distinct), len(texts))
    for row, made in enumerate(similarity.featurize(distinct, rarity)):
        prompt, a, b = theirs[3 * row : 3 * row + 3]
        assert np.allclose(made[:4], [prompt @ a, prompt @ b, prompt @ a - prompt @ b, a @ b], atol=1e-6)


def test_specificity_is_the_mean_rarity_of_words_and_of_new_words():
    rows = [(["red blue sky"], ["blue blue tall"], ["red"]), (["sky"], ["red"], ["red red tall"]), (["x"], [], ["x"])]
    distinct = Distinct.of(records(*rows))
    rarity = similarity.Rarity.of(similarity.document_counts(distinct), 9)

    def idf(count):
        return np.log(10 / (1 + max(count, 2))) + 1

    blue, tall, red = idf(2), idf(2), idf(4)
    made = similarity.featurize(distinct, rarity)[:, 4:]
    expected_a = [[(2 * blue + tall) / 3, tall], [red, red], [0, 0]]
    expected_b = [[red, 0], [(2 * red + tall) / 3, (red + tall) / 2], [idf(2), 0]]
    assert np.allclose(made[:, 0:2], expected_a, atol=1e-6)
    assert np.allclose(made[:, 2:4], expected_b, atol=1e-6)
    assert np.allclose(made[:, 4:6], np.subtract(expected_a, expected_b), atol=1e-6)


def test_vectors_survive_a_file(tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    pq.write_table(pa.table({"v": to_lists(vectors)}), tmp_path / "v.parquet")
    assert (from_lists(pq.read_table(tmp_path / "v.parquet")["v"]) == vectors).all()


def test_a_missing_column_is_named():
    block = PlainBlock("similarity", similarity.columns())
    with pytest.raises(InputError, match="missing column similarity_to_prompt_a and 11 more"):
        block.dense(pa.table({"id": ["1"]}))
