import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import filesystems
from core.errors import InputError
from core.filesystems import list_input_files
from votes.readers.files import ENDINGS, read_head, read_rows
from votes.readers.rows import BrokenRow, ReadOptions

ROWS = [
    {"id": "1", "prompt": '["a\\nb", null]', "response_a": '["x \\/ y"]', "response_b": 'line\n"two"'},
    {"id": "2", "prompt": "ünï", "response_a": "", "response_b": "a,b"},
]


def csv_bytes() -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ROWS[0].keys())
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


CONTENT = {
    "csv": csv_bytes,
    "jsonl": lambda: "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "json": lambda: json.dumps(ROWS).encode(),
    "parquet": parquet_bytes,
}
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def read(path):
    return [row for file in list_input_files(str(path), ENDINGS) for row in read_rows(file)]


def head(path, **options):
    (file,) = list_input_files(str(path), ENDINGS)
    return read_head(file, ReadOptions(**options))


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("packed", PACK)
def test_every_format_and_compression_gives_the_same_rows(tmp_path, kind, packed):
    path = tmp_path / f"votes.{kind}{packed}"
    path.write_bytes(PACK[packed](CONTENT[kind]()))
    assert read(path) == [(1, ROWS[0]), (2, ROWS[1])]


def test_folder_glob_and_uri(tmp_path):
    for name in ("b.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(CONTENT[name[2:]]())
    (tmp_path / "notes.txt").write_text("not input")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "old").mkdir()
    for name in (".hidden/c.csv", "old/c.csv"):
        (tmp_path / name).write_bytes(csv_bytes())
    assert len(read(tmp_path)) == 6
    assert len(read(f"{tmp_path}/*.csv")) == 2
    assert len(read(f"{tmp_path}/*/*.csv")) == 2
    assert len(read(f"file://{tmp_path}/b.csv")) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("empty.csv", b"", "the file is empty"),
        ("zip.csv", None, "zip archive"),
        ("wrong.csv", parquet_bytes(), "this is a Parquet file"),
        ("wrong.parquet", csv_bytes(), "cannot be read"),
        ("cut.csv.gz", gzip.compress(csv_bytes() * 100)[:-20], "cannot be read"),
        ("plain.csv.gz", csv_bytes(), "the content is not gz"),
        ("cut.json", CONTENT["json"]()[:-5], "malformed JSON"),
        ("nothing.json", b"[]", "the file is empty"),
        ("text.json", b'["id"]', "neither an object nor a list of objects"),
        ("votes.xlsx", b"PK", "unknown kind of file"),
    ],
)
def test_unreadable_files_are_named_with_reason_and_fix(tmp_path, name, content, message):
    path = tmp_path / name
    if name == "zip.csv":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("votes.csv", csv_bytes())
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert name in caught.value.where
    assert caught.value.fix


def test_broken_rows_keep_their_number_and_their_neighbours(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_bytes(b'id,prompt\n1,ok\n2,too,many\n3,\xff\n4,ok\n5,"never closed')
    numbers = dict(read(path))
    assert [number for number, row in numbers.items() if isinstance(row, BrokenRow)] == [2, 3, 5]
    assert "3 cells where the header has 2" in numbers[2].reason
    assert "not UTF-8" in numbers[3].reason
    assert "unexpected end" in numbers[5].reason
    assert numbers[5].raw == '5,"never closed'
    assert numbers[4] == {"id": "4", "prompt": "ok"}


def test_a_json_file_holds_one_object_or_a_list(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0]))
    assert read(tmp_path / "one.json") == [(1, ROWS[0])]
    (tmp_path / "two.json").write_text(json.dumps([3, ROWS[1]]))
    (_, broken), second = read(tmp_path / "two.json")
    assert (broken.reason, broken.raw) == ("not an object", "3")
    assert second == (2, ROWS[1])
    assert head(tmp_path / "two.json").names == {*ROWS[1]}


def test_a_quote_that_would_swallow_rows_is_an_error_with_its_line(tmp_path):
    (tmp_path / "votes.csv").write_bytes(b"id,prompt\n1,ok\n" + b'2,"open\n' + b"3,ok\n" * 50)
    with pytest.raises(InputError, match="a quote opened in or after line 3 is never closed; it spans 51 lines"):
        read(tmp_path / "votes.csv")


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("packed", PACK)
def test_the_header_is_read_without_the_rows(tmp_path, kind, packed):
    path = tmp_path / f"votes.{kind}{packed}"
    path.write_bytes(PACK[packed](CONTENT[kind]()))
    assert head(path).names == {"id", "prompt", "response_a", "response_b"}
    assert list(head(path).rows) == ROWS


def test_json_lines_without_an_object_have_no_keys(tmp_path):
    (tmp_path / "votes.jsonl").write_text("3\n[\n")
    assert head(tmp_path / "votes.jsonl").names == frozenset()


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-sig"])
def test_delimiters_and_byte_order_marks_are_recognized(tmp_path, delimiter, encoding):
    text = csv_bytes().decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    sink = io.StringIO(newline="")
    csv.writer(sink, delimiter=delimiter).writerows(rows)
    data = sink.getvalue()
    raw = b"\xfe\xff" + data.encode("utf-16-be") if encoding == "utf-16-be-sig" else data.encode(encoding)
    (tmp_path / "votes.csv").write_bytes(raw)
    assert read(tmp_path / "votes.csv") == [(1, ROWS[0]), (2, ROWS[1])]


def test_quotes_that_spark_escapes_are_recognized(tmp_path):
    (tmp_path / "votes.csv").write_text("id,prompt\n" + "".join(f'{n},"he said \\"no, {n}\\""\n' for n in range(9)))
    assert read(tmp_path / "votes.csv")[3] == (4, {"id": "3", "prompt": 'he said "no, 3"'})


def test_another_encoding_is_named_and_can_be_set(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_bytes("id,prompt\n1,Größe\n2,Übung\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"looks like cp1252\. Fix: set data\.encoding"):
        read(path)
    (file,) = list_input_files(str(path), ENDINGS)
    assert dict(read_rows(file, ReadOptions("cp1252")))[2] == {"id": "2", "prompt": "Übung"}
    with pytest.raises(InputError, match="unknown encoding 'klingon'"):
        head(path, encoding="klingon")


def test_a_column_name_that_occurs_twice_is_refused(tmp_path):
    (tmp_path / "votes.csv").write_text("id,prompt,prompt\n1,a,b\n")
    with pytest.raises(InputError, match="the header names 'prompt' more than once"):
        read(tmp_path / "votes.csv")


@pytest.mark.parametrize("orient", ["columns", "index", "split", "records", "table"])
def test_json_as_pandas_writes_it_is_rows(tmp_path, orient):
    pd.DataFrame(ROWS).to_json(tmp_path / "votes.json", orient=orient)
    assert [{name: row[name] for name in ROWS[0]} for _, row in read(tmp_path / "votes.json")] == ROWS


def test_a_list_inside_an_object_is_the_rows_and_the_rest_is_kept(tmp_path):
    (tmp_path / "votes.json").write_text(json.dumps({"version": 2, "comparisons": ROWS}))
    assert [row for _, row in read(tmp_path / "votes.json")] == ROWS
    assert head(tmp_path / "votes.json").outer == {"version": 2}


def test_json_lines_under_the_name_json_are_read(tmp_path):
    (tmp_path / "votes.json").write_bytes(CONTENT["jsonl"]())
    assert read(tmp_path / "votes.json") == [(1, ROWS[0]), (2, ROWS[1])]


def test_a_bucket_that_cannot_be_looked_up_is_not_taken_for_a_bad_uri(monkeypatch):
    def from_uri(uri):
        raise OSError("When resolving region for bucket 'nobodys': Could not resolve host")

    monkeypatch.setattr(filesystems, "fs", SimpleNamespace(FileSystem=SimpleNamespace(from_uri=from_uri)))
    with pytest.raises(InputError, match=r"resolve host.*Fix: check the bucket's name and the network"):
        list_input_files("s3://nobodys/votes.csv", ENDINGS)
