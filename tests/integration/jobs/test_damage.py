"""Outputs that were corrupted after they were finished: detected, named, and rebuilt with the same result."""

import pyarrow as pa
import pytest

from core.storage import CorruptFileError, Folder
from tests.helpers.commands import run_job

SMALL = [
    "data.synthetic.train_rows=120",
    "data.synthetic.test_rows=20",
    "data.shard_rows=60",
    "data.folds=3",
    "llms=[]",
    "boosters=[{name: lightgbm, engine: lightgbm, rounds: 20}]",
]


def damage(path):
    """Another content of the same size, as a bad disk leaves it."""
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, len(content) // 4 + 8):
        content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("cut", [False, True])
def test_a_corrupt_table_is_recognized(tmp_path, cut):
    folder, path = Folder(str(tmp_path)), tmp_path / "t.parquet"
    folder.write_table("t.parquet", pa.table({"number": range(1000), "text": [f"text {n}" for n in range(1000)]}))
    if cut:
        path.write_bytes(path.read_bytes()[:-100])
    else:
        damage(path)
    with pytest.raises(CorruptFileError, match=r"t\.parquet: corrupt: .*Fix: delete it and run the job"):
        folder.read_table("t.parquet")


def test_only_files_inside_are_deleted(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    for place in ("other/file", "run/../other/file"):
        with pytest.raises(ValueError, match="is not in"):
            Folder(str(tmp_path / "run")).delete_inside(str(tmp_path / place))
    Folder(str(tmp_path)).delete_inside(str(tmp_path / "other/file"))
    assert not (tmp_path / "other/file").exists()


@pytest.mark.slow
def test_corrupt_outputs_are_named_and_rebuilt(tmp_path):
    run = tmp_path / "run"
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    good = {path: path.read_bytes() for path in run.rglob("*") if path.suffix in (".parquet", ".csv", ".txt")}
    records = run / "records/train/part-00001.parquet"
    features = run / "features/handmade/train/part-00000.parquet"
    for path in (records, features):
        damage(path)
    # So that somebody looks: what is made from the records, and what is made from the features, is not there any more.
    (run / "features/similarity/train/part-00001.parquet").unlink()
    for left in (*run.glob("models/lightgbm/**/manifest.json"), *run.glob("predictions/lightgbm/*")):
        left.unlink()
    truncated = run / "blend/manifest.json"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"{truncated} is corrupt" in done.stderr
    for path in (records, features):
        assert f"{path} is corrupt" in done.stderr, path
    assert {path: path.read_bytes() for path in good} == good
