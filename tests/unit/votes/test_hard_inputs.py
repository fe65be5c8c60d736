"""Files from the wild are read right, or refused in one clear message."""

import re

import pytest

from core.errors import InputError
from tests.helpers.commands import SHARED
from tests.helpers.ingest import ingest_here

FILES = SHARED / "hard_inputs"
pytestmark = pytest.mark.skipif(
    not FILES.is_dir(), reason="the folder of hard inputs, ../shared/data/hard_inputs, is not beside the project"
)


def read(folder, name, split="train", **settings):
    table, metrics = ingest_here(folder, FILES / name, split, **settings)
    return table.to_pylist(), metrics


@pytest.mark.parametrize("name", ["python_list_cells.csv", "chat_message_cells.csv"])
def test_lists_and_messages_in_cells_are_turns(tmp_path, name):
    records, metrics = read(tmp_path, name)
    assert len(records) == 30
    assert metrics["rejected"] == []
    texts = [turn for record in records for side in ("prompt", "response_a", "response_b") for turn in record[side]]
    assert not any(re.match(r"\s*[\[{]", text) for text in texts if text)
    assert not any("'role'" in text or '"role"' in text for text in texts if text)


def test_a_null_in_a_python_list_is_a_null_turn(tmp_path):
    path = tmp_path / "votes.csv"
    rows = ["id,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie"]
    rows += [f"{n},\"['Why {n}?', 'And?']\",\"['a', None]\",\"['it\\'s', 'b']\",1,0,0" for n in range(4)]
    path.write_text("\n".join(rows))
    table, _ = ingest_here(tmp_path, path)
    assert table["response_a"].to_pylist()[0] == ["a", None]
    assert table["response_b"].to_pylist()[0] == ["it's", "b"]


def test_an_answer_of_a_plain_file_may_start_like_a_list(tmp_path):
    assert read(tmp_path / "train", "plain_train.csv")[1]["rejected"] == []
    records, metrics = read(tmp_path / "test", "plain_answer_starts_like_a_list_test.csv", "test")
    assert len(records) == 12
    assert metrics["rejected"] == []
    assert all(len(record["response_a"]) == 1 for record in records)
    assert any(record[side][0].startswith('["') for record in records for side in ("response_a", "response_b"))


def test_columns_that_share_a_name_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'response_a', 'winner_model_a'.*more than once"):
        read(tmp_path, "repeated_header_name.csv")


def test_ids_are_uuids_or_utf8(tmp_path):
    records, _ = read(tmp_path / "bytes", "binary_ids.parquet")
    others, _ = read(tmp_path / "uuids", "uuid_ids.parquet")
    ids = [record["id"] for record in records]
    assert ids == [record["id"] for record in others]
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name) for name in ids)


def test_odd_ids_are_kept(tmp_path):
    records, _ = read(tmp_path / "windows", "windows_ids_test.jsonl", "test")
    assert len({record["id"] for record in records}) == 8
    assert all(record["id"].endswith("\r") for record in records)
    records, metrics = read(tmp_path / "odd", "odd_ids_test.csv", "test")
    assert len(records) + len(metrics["rejected"]) == 22
    assert "\u200bzw" in {record["id"] for record in records}


def test_other_encodings_are_read_or_named(tmp_path):
    assert len(read(tmp_path / "utf16", "utf16_tab.csv")[0]) == 60
    with pytest.raises(InputError, match=r"not UTF-8; it looks like cp1252.*data\.encoding=cp1252"):
        read(tmp_path / "named", "cp1252.csv")
    records, _ = read(tmp_path / "set", "cp1252.csv", encoding="cp1252")
    assert len(records) == 60


@pytest.mark.parametrize(("name", "votes"), [("every_vote_a_tie.csv", [0, 0, 80]), ("one_tie_two_b.csv", [297, 2, 1])])
def test_lopsided_votes_are_counted(tmp_path, name, votes):
    _, metrics = read(tmp_path, name)
    assert list(metrics["votes"].values()) == votes
