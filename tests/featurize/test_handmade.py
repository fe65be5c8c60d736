import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurize import handmade
from featurize.catalogue import exchange
from preference.schema import TEST_RECORDS
from preference.swap import swap_records

FAMILIES = list(handmade.FAMILIES)


def records(*rows):
    columns = ("prompt", "response_a", "response_b")
    values = [
        {"id": str(n), "position": n, "group": n, **dict(zip(columns, row, strict=True))} for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(values, TEST_RECORDS)


def value(row, name):
    names = [column.name for column in handmade.columns(FAMILIES)]
    return handmade.featurize(records(row), FAMILIES)[0, names.index(name)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
TURNS = st.lists(st.none() | TEXT, min_size=0, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TURNS, TURNS, TURNS), min_size=1, max_size=3))
def test_any_text_gives_finite_numbers_and_swapping_is_permutation_and_sign(rows):
    table = records(*rows)
    made = handmade.featurize(table, FAMILIES)
    assert np.isfinite(made).all()
    permutation, signs = exchange(handmade.columns(FAMILIES))
    assert (made[:, permutation] * signs == handmade.featurize(swap_records(table), FAMILIES)).all()
    assert (made[:, permutation][:, permutation] * signs * signs[permutation] == made).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("length_words_a", 8),
        ("length_sentences_a", 2),
        ("length_words_b", 0),
        ("length_empty_b", 1),
        ("length_null_turns_b", 1),
        ("length_turns_prompt", 2),
        ("length_words_difference", 8),
        ("length_words_ratio", 8 / 9),
        ("vocabulary_distinct_a", 6),
        ("vocabulary_type_token_ratio_a", 6 / 8),
        ("vocabulary_hapax_share_a", 5 / 6),
        ("style_headers_a", 1),
        ("style_bullets_a", 2),
        ("style_code_blocks_a", 1),
        ("style_inline_code_prompt", 1),
        ("style_questions_prompt", 2),
    ],
)
def test_counts(name, expected):
    answer = "# Title one. Two!\n- a\n* b\n```\n# no\n- no\n```\nno"
    assert np.isclose(value((["Why `x`?", "How?"], [answer], [None]), name), expected)


@pytest.mark.parametrize(
    "piece", ["\n", ".", ". ", " ", "\n ", "1", "- ", "**", "`", "```", "| ", "#", "\t|", "__", "？"]
)
@pytest.mark.timeout(10)
def test_long_runs_take_linear_time(piece):
    """A pattern that is quadratic in one of these would take hours; the limit is generous."""
    assert np.isfinite(handmade.featurize(records((["q"], [piece * 500_000 + "x"], ["b"])), FAMILIES)).all()


def test_a_large_text_is_analysed():
    assert value((["q"], ["word " * 1_000_000], ["b"]), "length_words_a") == 1_000_000
