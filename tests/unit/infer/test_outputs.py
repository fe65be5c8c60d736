"""The submission is read back with every id once, by any reader of CSV."""

import csv
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

from infer.ensemble.outputs import submission

IDS = ["1000", "q1\r", "q2\r\n", "\u200bzw", 'say "yes"', "a,b", " x ", "q1"]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_ids_are_read_back_as_given(classes):
    values = np.random.default_rng(0).dirichlet(np.ones(classes), size=len(IDS))
    content = submission(pa.chunked_array([IDS]), values)
    assert pd.read_csv(io.BytesIO(content), dtype={"id": str})["id"].tolist() == IDS
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert [row[0] for row in rows] == ["id", *IDS]
    arrow = pyarrow.csv.read_csv(
        io.BytesIO(content),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"id": pa.string()}),
    )
    assert arrow["id"].to_pylist() == IDS
    if classes == 2:
        assert rows[0] == ["id", "winner"]
        assert [row[1] for row in rows[1:]] == ["model_a" if a >= b else "model_b" for a, b in values]
    else:
        np.testing.assert_array_equal(np.array([row[1:] for row in rows[1:]], float), values)


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("winner", [["id", "winner"], ["1", "model_a"], ["2", "tie"]]),
        ("probabilities", [["id", "winner_model_a", "winner_model_b", "winner_tie"], ["1", "0.5", "0.3", "0.2"]]),
    ],
)
def test_the_settings_choose_the_columns(form, rows):
    values = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    content = submission(pa.chunked_array([["1", "2"]]), values, form)
    assert list(csv.reader(io.StringIO(content.decode())))[: len(rows)] == rows


def test_ordinary_ids_have_no_quotes():
    assert submission(pa.chunked_array([["7"]]), np.array([[0.5, 0.25, 0.25]])) == (
        b"id,winner_model_a,winner_model_b,winner_tie\n7,0.5,0.25,0.25\n"
    )
