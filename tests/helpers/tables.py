"""Small tables of records for tests of features, and real ones."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from votes.schema import TEST_RECORDS

SHARED = Path(__file__).parents[3] / "shared/data"

# Any Unicode but lone surrogates, which ingest replaces; seasoned with what rules and tokenizers look for.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.sampled_from(
    [
        *("# A\n- b\n```x\n# y```", "I cannot do that. Sorry!", "see https://a.b/c or f_x()"),
        *("שלום 你好 مرحبا привет", "$5 on May 3"),
    ]
)
TURNS = st.lists(st.none() | TEXT, min_size=0, max_size=3)
ROWS = st.lists(st.tuples(TURNS, TURNS, TURNS), min_size=1, max_size=3)


def records(*rows: Sequence[Any]) -> pa.Table:
    """Records of rows (prompt turns, turns of A, turns of B)."""
    columns = ("prompt", "response_a", "response_b")
    values = [
        {"id": str(n), "position": n, "group": n, **dict(zip(columns, row, strict=True))} for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(values, TEST_RECORDS)


def real_records(count: int) -> pa.Table:
    """The first records of kaggle1000; skips the test where they are absent."""
    path = SHARED / "kaggle1000.csv"
    if not path.exists():
        pytest.skip("the folder of real votes, ../shared/data, is not beside the project")
    csv.field_size_limit(10**9)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(count), strict=False)]
    return records(*([json.loads(row[part]) for part in ("prompt", "response_a", "response_b")] for row in rows))
