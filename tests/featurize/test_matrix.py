import numpy as np
import pyarrow as pa
import pytest

from featurize import handmade, ngrams
from featurize.matrix import Block, Layout
from preference.schema import TEST_RECORDS
from preference.swap import swap_records

SETTINGS = ngrams.NgramSettings("word", (1, 1), "count", min_df=0.0, max_features=100)


def matrix(table: pa.Table, layout: Layout, vocabulary: ngrams.Vocabulary):
    made = handmade.featurize(table, ["length"])
    names = [column.name for column in handmade.columns(["length"])]
    side = {"prompt": "prompt", "response_a": "a", "response_b": "b"}
    sparse = {
        side[part]: ngrams.transform([" ".join(turns) for turns in table[part].to_pylist()], vocabulary, SETTINGS)
        for part in side
    }
    blocks = {
        block.name: pa.table(
            {"prompt": sparse["prompt"]} if block.part == "prompt" else {"a": sparse["a"], "b": sparse["b"]}
        )
        for block in layout.blocks
    }
    return layout.dense(pa.table({name: made[:, n] for n, name in enumerate(names)}), blocks)


@pytest.mark.parametrize("view", ["pair", "difference"])
def test_a_swapped_records_row_follows_by_permutation_and_sign(view):
    texts = ["red blue", "blue blue tall", "red", "tall tall", "blue", "red tall red"]
    rows = [
        {"id": str(n), "position": n, "group": n, "prompt": [q], "response_a": [a], "response_b": [b]}
        for n, (q, a, b) in enumerate(zip(texts, texts[1:], texts[2:], strict=False))
    ]
    table = pa.Table.from_pylist(rows, TEST_RECORDS)
    vocabulary = ngrams.choose_vocabulary(ngrams.count_terms(texts, SETTINGS), len(texts), SETTINGS)
    layout = Layout(
        handmade.columns(["length"]),
        [Block("q", "prompt", "pair", vocabulary.terms), Block("r", "response", view, vocabulary.terms)],
    )
    made = matrix(table, layout, vocabulary)
    permutation, signs = layout.exchange()
    assert made.shape == (4, len(layout.columns()))
    assert len({column.name for column in layout.columns()}) == made.shape[1]
    assert (made[:, permutation] * signs == matrix(swap_records(table), layout, vocabulary)).all()
    assert np.abs(made[:, permutation] * signs - made).max() > 0
