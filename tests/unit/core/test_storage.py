import os
import stat

import pyarrow as pa
import pytest

from core.storage import CorruptFileError, Folder

TABLE = pa.table({"id": ["a", "b"], "x": [1.0, 2.0]})


@pytest.fixture(params=["path", "uri"])
def folder(request, tmp_path):
    return Folder(f"{tmp_path}/deep/run" if request.param == "path" else f"file://{tmp_path}/deep/run")


def test_what_is_written_is_read_back(folder):
    folder.write_json("a/b.json", {"é": [1, None]})
    folder.write_table("t.parquet", TABLE, fingerprint="f1")
    assert folder.read_json("a/b.json") == {"é": [1, None]}
    assert folder.read_table("t.parquet", ["x"]).column_names == ["x"]
    assert folder.table_fingerprint("t.parquet") == "f1"
    assert list(folder.files()) == ["a/b.json", "t.parquet"]
    folder.delete("t.parquet")
    folder.delete("t.parquet")
    assert not folder.exists("t.parquet")
    folder.delete_all()
    assert folder.files() == {}


def test_a_table_that_is_broken_or_of_no_stage_has_no_fingerprint(folder):
    folder.write_table("plain.parquet", TABLE)
    folder.write_table("cut.parquet", TABLE, fingerprint="f1")
    whole = folder.read_bytes("cut.parquet")
    folder.write_bytes("cut.parquet", whole[:-30])
    names = ["plain.parquet", "cut.parquet", "none.parquet"]
    footer = 8 + int.from_bytes(whole[-8:-4], "little")
    for place in (4, footer):  # from its end, without a change in size
        names.append(f"{place}.parquet")
        folder.write_bytes(names[-1], whole[:-place] + b"\xff" * 4 + whole[len(whole) - place + 4 :])
        with pytest.raises(CorruptFileError, match=names[-1]):
            folder.read_table(names[-1])
    assert [folder.table_fingerprint(name) for name in names] == [None] * 5


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    folder.write_bytes("x", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write_bytes("x", b"new")
    assert folder.read_bytes("x") == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_files_get_the_users_ordinary_permissions(tmp_path):
    Folder(str(tmp_path)).write_bytes("x", b"")
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("x", "plain")}
    assert len(modes) == 1


def test_what_json_cannot_hold_is_not_written(tmp_path):
    folder = Folder(str(tmp_path))
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("x.json", {"loss": float("nan")})
    assert not folder.exists("x.json")
