import json
import zipfile

import pyarrow.parquet as pq
import pytest

from core import cli
from ray_jobs.ingest import ingest
from tests.helpers.votes import COLUMNS, vote, write_votes

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def job(tmp_path, capsys):
    """Runs ingest on tmp_path/run; returns exit code, standard output and standard error."""
    (tmp_path / "config.yaml").write_text(f"run: {tmp_path}/run\ndata: {{folds: 5, shard_rows: 40}}\n")

    def run(*overrides, force=False):
        arguments = ["--config", str(tmp_path / "config.yaml")]
        for override in overrides:
            arguments += ["--set", override]
        code = cli.main(cli.Job("ingest", None, ingest), arguments + ["--force"] * force)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def table(tmp_path, split):
    return pq.ParquetDataset(tmp_path / f"run/records/{split}").read()


def test_records_keep_input_order_and_near_copies_share_a_fold(tmp_path, job):
    rows = [vote(n) for n in range(100)]
    rows[50]["prompt"] = rows[3]["prompt"].replace("question", "QUESTION ")
    train = write_votes(tmp_path / "train.csv", rows)
    test = write_votes(tmp_path / "test.csv", rows[:30], COLUMNS[:1] + COLUMNS[3:6])
    code, out, _ = job(f"data.train={train}", f"data.test={test}")
    assert code == 0
    records = table(tmp_path, "train")
    assert records["id"].to_pylist() == [row["id"] for row in rows]
    assert records["position"].to_pylist() == list(range(100))
    assert records["label"].to_pylist() == [n % 3 for n in range(100)]
    assert records["fold"][50].as_py() == records["fold"][3].as_py()
    assert set(records["fold"].to_pylist()) == set(range(5))
    assert table(tmp_path, "test").column_names == ["id", "position", "prompt", "response_a", "response_b", "group"]
    assert "100 train, 30 test, 0 quarantine" in out
    assert not (tmp_path / "run/.work/ingest").exists()

    before = (tmp_path / "run/records/train/part-00000.parquet").stat().st_mtime_ns
    assert "cached" in job(f"data.train={train}", f"data.test={test}")[1]
    assert (tmp_path / "run/records/train/part-00000.parquet").stat().st_mtime_ns == before
    assert "cached" not in job(f"data.train={train}", f"data.test={test}", force=True)[1]


def test_broken_rows_go_to_quarantine_with_file_row_and_reason(tmp_path, job):
    rows = [vote(n) for n in range(200)]
    rows[10]["winner_tie"] = rows[10]["winner_model_a"] = rows[10]["winner_model_b"] = "0"
    rows[60]["response_a"] = '["never closed'
    rows[199]["id"] = ""
    train = write_votes(tmp_path / "train.csv", rows)
    code, out, _ = job(f"data.train={train}")
    assert code == 0
    rejected = table(tmp_path, "quarantine").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (11, "no winner"),
        (61, "response_a is not a JSON list of texts"),
        (200, "missing id"),
    ]
    assert all(row["file"] == str(train) for row in rejected)
    assert json.loads(rejected[1]["raw"]) == rows[60]
    assert "3 rows quarantined" in out
    assert len(table(tmp_path, "train")) == 197


def test_files_of_a_folder_are_one_input_and_sharding_does_not_move_folds(tmp_path, job):
    (tmp_path / "in").mkdir()
    write_votes(tmp_path / "in/a.csv", [vote(n) for n in range(70)])
    write_votes(tmp_path / "in/b.csv", [vote(n) for n in range(70, 100)])
    assert job(f"data.train={tmp_path}/in")[0] == 0
    folder = table(tmp_path, "train")
    single = write_votes(tmp_path / "train.csv", [vote(n) for n in range(100)])
    assert job(f"data.train={single}", "data.shard_rows=7")[0] == 0
    assert table(tmp_path, "train").equals(folder)


BAD = {
    "missing file": (lambda path: None, "train.csv: no such file"),
    "empty file": (lambda path: path.write_text(""), "the file is empty"),
    "header only": (lambda path: write_votes(path, []), "a header but no rows"),
    "missing column": (
        lambda path: write_votes(path, [vote(1)], COLUMNS[:8]),
        "missing column winner_tie",
    ),
    "duplicate ids": (
        lambda path: write_votes(path, [vote(n) for n in range(50)] + [vote(7)]),
        "the id '7' is used in rows 8 and 51",
    ),
    "zip": (lambda path: zipfile.ZipFile(path, "w").writestr("train.csv", "id"), "this is a zip archive"),
    "all invalid": (
        lambda path: write_votes(path, [vote(n, winner_tie="2") for n in range(50)]),
        "none of the 50 rows is valid (50 x winner_tie is neither 0 nor 1)",
    ),
    "too few prompts": (lambda path: write_votes(path, [vote(1), vote(2)]), "2 different prompts cannot fill 5 folds"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_message_exit_code_2_and_leaves_nothing_half_written(tmp_path, job, kind):
    make, message = BAD[kind]
    make(tmp_path / "train.csv")
    code, out, err = job(f"data.train={tmp_path}/train.csv")
    assert code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "train.csv" in last
    assert "Fix: " in last
    assert "Traceback" not in err
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == []


def test_bad_input_leaves_an_earlier_run_whole(tmp_path, job):
    train = write_votes(tmp_path / "train.csv", [vote(n) for n in range(50)])
    assert job(f"data.train={train}")[0] == 0
    write_votes(train, [vote(n) for n in range(50)] + [vote(7)])
    assert job(f"data.train={train}")[0] == 2
    assert len(table(tmp_path, "train")) == 50
    assert (tmp_path / "run/records/manifest.json").exists()


def test_pairs_to_score_without_votes_are_not_answered_from_made_up_ones(tmp_path, job):
    test = write_votes(tmp_path / "test.csv", [vote(1)], COLUMNS[:1] + COLUMNS[3:6])
    code, _, err = job(f"data.test={test}", "data.synthetic={}")
    assert code == 2
    assert "data.test: there are pairs to score but no votes to learn from" in err


def test_a_place_that_cannot_hold_a_run_is_exit_2(tmp_path, job):
    (tmp_path / "file").touch()
    for place in (f"{tmp_path}/file/run", "/proc/none/run"):
        code, _, err = job(f"run={place}", f"data.train={tmp_path}/none.csv")
        assert code == 2
        assert f"error: {place}: cannot be reached" in err
    assert job(f"run={tmp_path}/deep/run", f"data.train={tmp_path}/none.csv")[0] == 2
    assert not (tmp_path / "deep").exists()


def test_unknown_settings_are_exit_2(job):
    code, _, err = job("data.trian=x")
    assert code == 2
    assert "did you mean 'train'" in err
