"""Whatever a row holds, a format gives comparisons or a reason: one odd row never ends a job."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.filesystems import list_input_files
from core.settings.data import Data
from tests.helpers.commands import SHARED
from votes.comparison import InvalidRow
from votes.readers.files import read_head
from votes.recognition import recognize_file
from votes.record_reader import _comparisons, _fields

FILES = sorted((SHARED / "formats").glob("*.*"))
NAMES = [path.name for path in FILES if path.name != "expected.json"] or ["none"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
WORDS = st.sampled_from(["user", "tie", "left", "[", '["x"]', "[{'role': 'user'", "1", "", "\ud800", "\n\nHuman: "])
KEYS = st.sampled_from(["role", "content", "text", "type", "value", "rank", "parts"])
VALUES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a row."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


@pytest.mark.skipif(
    NAMES == ["none"], reason="the folder of formats, ../shared/data/formats, is not beside the project"
)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_with_a_value_of_any_kind_is_read_or_refused(name, data):
    file = recognize_file(list_input_files(str(SHARED / "formats" / name), ())[0], Data(), labeled=True)
    row: dict[str, Any] = copy.deepcopy(dict(data.draw(st.sampled_from(read_head(file.file).rows))))
    *way, last = data.draw(st.sampled_from(places(row)[1:]))
    target: Any = row
    for key in way:
        target = target[key]
    target[last] = data.draw(VALUES)
    try:
        comparisons = _comparisons(file, file.vote_format, row)
        records = [_fields(comparison, file, file.vote_format.ranked, "1") for comparison in comparisons]
    except InvalidRow:
        return
    for record in records:
        for turns in (record["prompt"], record["response_a"], record["response_b"]):
            assert len(turns) > 0
            assert all(turn is None or isinstance(turn, str) for turn in turns)
            "".join(turn or "" for turn in turns).encode()  # no lone surrogates
        assert all(sum(shares) == pytest.approx(1) for shares in record["shares"])
        assert all(isinstance(record[field], str | None) for field in ("id", "model_a", "model_b", "language"))
