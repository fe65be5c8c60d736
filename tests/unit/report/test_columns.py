"""Columns of records that the report needs."""

import pyarrow as pa

from report.columns import compute_columns
from votes.schema import TEXTS


def test_columns_of_records():
    code = "Look:\n```py\n# no header\n- no item\n```"
    marked = "# Head\n\n- one\n- two\n1. three\n\n**bold** and **more**"
    texts = [
        {"prompt": ["How do I sort a list in Python?"], "response_a": [code], "response_b": [marked]},
        {"prompt": ["Wie spät ist es gerade in Berlin?", "Und in Hamburg?"], "response_a": [None], "response_b": [""]},
    ]
    columns = compute_columns(pa.Table.from_pylist(texts, pa.schema([(part, pa.list_(pa.string())) for part in TEXTS])))
    assert columns["turns"].tolist() == [1, 2]
    assert columns["english"].tolist() == [True, False]
    assert columns["code"].tolist() == [True, False]
    assert columns["chars_a"].tolist() == [len(code), 0]
    assert [columns[f"{name}_b"][0] for name in ("headers", "lists", "bold")] == [1, 3, 2]
    assert [columns[f"{name}_a"][0] for name in ("headers", "lists", "bold")] == [0, 0, 0]  # code is no markup
    assert columns["length_b"].tolist()[0] > 10
    assert columns["length_a"].tolist()[1] == 0
