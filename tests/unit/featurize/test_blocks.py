import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import InputError
from core.settings.features import FamilyEntry, default_families
from core.storage import Folder
from featurize.blocks import Layout, vectors_from_lists, vectors_to_lists
from featurize.families.ngrams import NgramSettings
from featurize.families.similarity import WordRarity, document_counts, similarity_matrix
from featurize.families.word2vec import Word2VecSettings
from featurize.outputs import entry_family
from featurize.text import DistinctTexts
from tests.helpers.features import fit_entry, output_of, shard_file
from tests.helpers.swap import swap_records
from tests.helpers.tables import ROWS, records

TRAINING = records((["red sky"], ["blue tall sky"], ["tall red"]), (["blue sky"], ["red"], ["sky bled"]))


def entries(view):
    """All hand-made families, n-grams of every kind and word vectors."""
    return [
        *default_families(),
        NgramSettings(name="q", part="prompt", weighting="count", min_df=0.0),
        NgramSettings(name="r", weighting="count", min_df=0.0, view=view),
        NgramSettings(name="c", analyzer="char", ngram_range=(1, 2), min_df=0.0, view=view),
        Word2VecSettings(dimensions=5, epochs=1, view=view),
    ]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with what all these fit on two records."""
    folder = Folder(str(tmp_path_factory.mktemp("features")))
    for entry in entries("pair"):
        fit_entry(entry, [TRAINING[:1], TRAINING[1:]], folder)
    return folder


def layout(view, folder):
    return Layout([entry_family(entry).block(entry, output_of(entry), folder) for entry in entries(view)])


def matrix(table, view, folder):
    blocks = layout(view, folder).blocks
    files = [shard_file(entry, table, folder) for entry in entries(view)]
    return np.concatenate([block.dense(file) for block, file in zip(blocks, files, strict=True)], axis=1)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.sampled_from(["pair", "difference"]))
def test_a_swapped_records_row_follows_by_permutation_and_sign_in_every_family(fitted, rows, view):
    table = records(*rows)
    features = matrix(table, view, fitted)
    columns = layout(view, fitted).columns()
    assert features.shape == (len(rows), len(columns))
    assert len({column.name for column in columns}) == len(columns)
    assert np.isfinite(features).all()
    permutation, signs = layout(view, fitted).exchange()
    assert (features[:, permutation] * signs == matrix(swap_records(table), view, fitted)).all()
    assert (features[:, permutation][:, permutation] * signs * signs[permutation] == features).all()


def test_families_that_are_left_out_leave_the_others_as_they_are(fitted):
    table = records((["red sky"], ["blue sky"], ["tall"]))
    whole = layout("pair", fitted)
    part = whole.of(["r", "style", "length"])
    assert part.families() == ["length", "style", "r"]
    names = [column.name for column in whole.columns()]
    files = {output_of(entry).folder: shard_file(entry, table, fitted) for entry in entries("pair")}
    files["handmade"] = pa.table(
        {
            name: column
            for entry in default_families()
            for name, column in zip(*_columns(shard_file(entry, table, fitted)), strict=True)
        }
    )
    place = [names.index(column.name) for column in part.columns()]
    assert (part.dense(files) == whole.dense(files)[:, place]).all()


def _columns(table):
    return table.column_names, table.columns


def test_swapping_changes_what_it_should(fitted):
    table = records((["red sky"], ["blue sky"], ["tall"]), (["blue"], ["red red"], ["sky red"]))
    features = matrix(table, "pair", fitted)
    permutation, signs = layout("pair", fitted).exchange()
    changed = (features[:, permutation] * signs != features).any(axis=0)
    families = {column.family for column, moved in zip(layout("pair", fitted).columns(), changed, strict=True) if moved}
    assert {"length", "overlap", "similarity", "r", "word2vec"} <= families
    assert "q" not in families


def test_cosines_are_those_of_the_formula():
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = [(["red blue sky"], ["blue blue"], ["tall sky"]), (["sky"], ["red"], ["red red tall"])]
    texts = [turns[0] for row in rows for turns in row]
    reference = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts).toarray()
    distinct = DistinctTexts.of(records(*rows))
    rarity = WordRarity.of(document_counts(distinct), len(texts))
    for row, features in enumerate(similarity_matrix(distinct, rarity)):
        prompt, a, b = reference[3 * row : 3 * row + 3]
        assert np.allclose(features[:4], [prompt @ a, prompt @ b, prompt @ a - prompt @ b, a @ b], atol=1e-6)


def test_specificity_is_the_mean_rarity_of_words_and_of_new_words():
    rows = [(["red blue sky"], ["blue blue tall"], ["red"]), (["sky"], ["red"], ["red red tall"]), (["x"], [], ["x"])]
    distinct = DistinctTexts.of(records(*rows))
    rarity = WordRarity.of(document_counts(distinct), 9)

    def idf(count):
        return np.log(10 / (1 + max(count, 2))) + 1

    blue, tall, red = idf(2), idf(2), idf(4)
    features = similarity_matrix(distinct, rarity)[:, 4:]
    expected_a = [[(2 * blue + tall) / 3, tall], [red, red], [0, 0]]
    expected_b = [[red, 0], [(2 * red + tall) / 3, (red + tall) / 2], [idf(2), 0]]
    assert np.allclose(features[:, 0:2], expected_a, atol=1e-6)
    assert np.allclose(features[:, 2:4], expected_b, atol=1e-6)
    assert np.allclose(features[:, 4:6], np.subtract(expected_a, expected_b), atol=1e-6)


def test_vectors_survive_a_file(tmp_path):
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    pq.write_table(pa.table({"v": vectors_to_lists(vectors)}), tmp_path / "v.parquet")
    assert (vectors_from_lists(pq.read_table(tmp_path / "v.parquet")["v"]) == vectors).all()


def test_a_missing_column_is_named():
    entry = FamilyEntry(family="similarity")
    block = entry_family(entry).block(entry, output_of(entry), Folder("unused"))
    with pytest.raises(InputError, match="missing column similarity_to_prompt_a and 11 more"):
        block.dense(pa.table({"id": ["1"]}))
