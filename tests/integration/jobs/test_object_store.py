"""Runs in an object store: the same results as on a disk, through cuts, and refusals that say why."""

import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import lock
from core.errors import InputError
from core.filesystems import list_input_files
from core.lock import LOCK_FOLDER, run_lock
from core.storage import CorruptFileError, Folder
from tests.helpers.commands import ROOT, job_line, run_here, run_job
from tests.helpers.object_store import BUCKET, Cable, keys_in_this_process, object_store
from votes import predictions
from votes.readers.files import ENDINGS, read_rows

SMALL = [
    "data.synthetic.train_rows=200",
    "data.synthetic.test_rows=40",
    "data.shard_rows=50",
    "data.folds=4",
    "boosters.lightgbm.rounds=30",
    "boosters.xgboost.rounds=30",
]


@pytest.fixture(scope="module")
def store():
    with object_store() as found, keys_in_this_process(found):
        yield found


@pytest.fixture
def folder(store, request):
    return Folder(store.uri(request.node.name.replace("[", "-").rstrip("]")))


def run_in(store, job, run, *overrides):
    line = [sys.executable, *job_line(job, run, *overrides)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=store.environment(), check=False)


def test_files_are_as_on_a_disk(folder):
    folder.refuse_unwritable()
    assert folder.files() == {}
    folder.write_json("a/b.json", {"x": [1, None]})
    folder.write_bytes("c", b"old")
    folder.write_bytes("c", b"new")
    assert folder.read_json("a/b.json") == {"x": [1, None]}
    assert folder.read_bytes("c") == b"new"
    assert folder.files() == {"a/b.json": folder.size("a/b.json"), "c": 3}
    folder.delete("c")
    folder.delete("c")
    assert not folder.exists("c")
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("c")
    folder.delete_all()
    assert folder.files() == {}


def test_a_corrupt_table_is_not_an_outage(store, folder):
    cable = Cable(store.port)
    folder.write_table("t.parquet", pa.table({"a": range(100)}), "made so")
    assert folder.table_fingerprint("t.parquet") == "made so"
    through = Folder(folder.uri.replace(f":{store.port}", f":{cable.port}"))
    assert through.read_table("t.parquet").num_rows == 100
    cable.cut()
    back = threading.Timer(3, cable.mend)
    back.start()
    assert through.read_table("t.parquet").num_rows == 100
    assert back.finished.is_set(), "it must have waited"
    folder.write_bytes("t.parquet", folder.read_bytes("t.parquet")[:-20])
    with pytest.raises(CorruptFileError):
        through.read_table("t.parquet")
    cable.close()


def test_input_is_read_on_after_a_cut(store, folder):
    cable = Cable(store.port)
    folder.write_bytes("votes.jsonl", b'{"id": "1"}\n')
    (file,) = list_input_files((folder / "votes.jsonl").uri.replace(f":{store.port}", f":{cable.port}"), ENDINGS)
    cable.cut()
    back = threading.Timer(3, cable.mend)
    back.start()
    sent = pickle.loads(pickle.dumps(file))  # as to the task that reads it
    assert list(read_rows(sent)) == [(1, {"id": "1"})]
    assert back.finished.is_set(), "it must have waited"
    cable.close()


def test_one_job_at_a_time(folder, monkeypatch):
    for name, seconds in {"STOP_TIMEOUT_S": 1.0, "POLL_S": 0.2}.items():
        monkeypatch.setattr(lock, name, seconds)
    with run_lock(folder, "blend"):
        pass
    other = {"owner": "ada", "host": "elsewhere", "pid": 1, "job": "pipeline", "since": "then"}
    over = threading.Event()

    def renew():
        while not over.wait(0.3):
            folder.write_json(f"{LOCK_FOLDER}/other.json", other)

    beat = threading.Thread(target=renew)
    folder.write_json(f"{LOCK_FOLDER}/other.json", other)
    beat.start()
    try:
        with pytest.raises(InputError, match="ada on elsewhere"), run_lock(folder, "blend"):
            pass
    finally:
        over.set()
        beat.join()
    with run_lock(folder, "blend", force_unlock=True):
        assert not folder.exists(f"{LOCK_FOLDER}/other.json")
    assert folder.files() == {}


def test_a_bucket_that_may_not_be_written_is_bad_input():
    with object_store(read_only=True) as store:
        done = run_in(store, "ingest", store.uri("runs/x"))
    assert done.returncode == 2
    assert "ACCESS_DENIED" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("uri", ["s3://key:secret@bucket/x", "s3://no-such-bucket/x?{options}"])
def test_a_place_that_cannot_be_is_bad_input(store, uri):
    done = run_here("ingest", uri.replace("{options}", store.uri("").partition("?")[2]))
    assert done.returncode == 2
    assert "key:secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def compare(store, name, local):
    for model in ("lightgbm", "xgboost", "gemma", "llama"):
        for split in ("train", "test"):
            file = f"predictions/{model}/{split}.parquet"
            content = store.client("s3").get_object(Bucket=BUCKET, Key=f"{name}/{file}")["Body"].read()
            if model in ("lightgbm", "xgboost"):
                assert content == (local / file).read_bytes(), file
                continue
            theirs, ours = pq.read_table(pa.BufferReader(content)), pq.read_table(local / file)
            assert theirs["id"].equals(ours["id"])
            np.testing.assert_allclose(
                predictions.probabilities_from_table(theirs), predictions.probabilities_from_table(ours), atol=1e-5
            )


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    run = tmp_path_factory.mktemp("local") / "run"
    done = run_job("pipeline", run, *SMALL)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
def test_the_demo_in_a_store_gives_what_it_gives_on_a_disk(store, local):
    done = run_in(store, "pipeline", store.uri("demo"), *SMALL)
    assert done.returncode == 0, done.stderr
    compare(store, "demo", local)
    again = run_in(store, "pipeline", store.uri("demo"), *SMALL)
    assert again.returncode == 0
    assert "cached" in again.stdout


@pytest.mark.slow
def test_a_store_that_is_away_for_half_a_minute_ends_nothing(store, local):
    cable = Cable(store.port)
    line = [sys.executable, *job_line("pipeline", store.uri("cut", cable.port), *SMALL)]
    with subprocess.Popen(line, cwd=ROOT, env=store.environment(), stderr=subprocess.PIPE, text=True) as job:
        assert job.stderr is not None
        told = []
        for text in job.stderr:
            told.append(text)
            if "[train_boosters" in text or "/4 folds" in text:
                cable.cut()
                time.sleep(30)
                cable.mend()
                break
        told += list(job.stderr)
    cable.close()
    assert job.returncode == 0, "".join(told)
    compare(store, "cut", local)
