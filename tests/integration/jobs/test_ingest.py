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
    assert table(tmp_path, "test").column_names == [
        "id",
        "position",
        "prompt",
        "response_a",
        "response_b",
        "language",
        "group",
        "model_a",
        "model_b",
    ]
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
        (61, "response_a is not a list of texts"),
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
        lambda path: write_votes(path, [vote(n) for n in range(50)] + [vote(7, prompt="other")]),
        "the id '7' is used in rows 8 and 51 for different texts",
    ),
    "zip": (lambda path: zipfile.ZipFile(path, "w").writestr("train.csv", "id"), "this is a zip archive"),
    "all invalid": (
        lambda path: write_votes(path, [vote(n, winner_tie="2") for n in range(50)]),
        "none of the 50 rows is valid (50 x winner_tie is neither 0 nor 1, nor a share between them)",
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
    write_votes(train, [vote(n) for n in range(50)] + [vote(7, prompt="other")])
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


def test_several_votes_on_a_pair_are_one_record_and_voters_are_kept(tmp_path, job):
    lines = ["pair_id,voter,prompt,response_a,response_b,model_a,model_b,winner"]
    for n in range(20):
        for voter, winner in enumerate(["A", "tie" if n % 2 else "both bad", "B"]):
            texts = (f"answer {n}", f"other {n}") if voter else (f"other {n}", f"answer {n}")  # one saw them exchanged
            models = ("m", "n") if voter else ("n", "m")
            lines.append(f"p{n},v{voter},question {n},{','.join((*texts, *models))},{winner}")
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    code, out, err = job(f"data.train={tmp_path}/votes.csv")
    assert code == 0, err
    assert "20 train" in out
    assert "train: format winner" in err
    records = table(tmp_path, "train").to_pylist()
    assert [row["id"] for row in records] == [f"p{n}" for n in range(20)]
    # A of the first voter, who saw the answers in this order; B of the third is A's other side, so it is for A.
    assert all(row["votes"] == [2.0, 0.0, 1.0] and row["voters"] == 3 for row in records)
    manifest = json.loads((tmp_path / "run/records/manifest.json").read_text())
    assert manifest["metrics"]["votes"] == {"a": 40.0, "b": 0.0, "tie": 20.0}
    assert manifest["metrics"]["both_bad_as_tie"] == 10.0
    assert manifest["metrics"]["format"] == {"train": ["winner"]}
    ballots = table(tmp_path, "voters/train").to_pylist()
    assert [ballot["voter"] for ballot in ballots[:3]] == ["v0", "v1", "v2"]
    assert [ballot["votes"] for ballot in ballots[:3]] == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_columns_of_the_settings_map_any_table(tmp_path, job):
    rows = [
        {"question": f"question {n}", "answers": [f"first {n}", f"second {n}"], "label": n % 3, "who": {"id": n % 2}}
        for n in range(30)
    ]
    (tmp_path / "votes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = (
        "{prompt: question, response_a: [answers, 0], response_b: [answers, 1], voter: [who, id],"
        " winner: {column: label, map: {1: a, 2: b, 0: tie}}}"
    )
    code, _, err = job(f"data.train={tmp_path}/votes.jsonl", f"data.columns={columns}")
    assert code == 0, err
    records = table(tmp_path, "train").to_pylist()
    assert records[1]["response_b"] == ["second 1"]
    assert [row["label"] for row in records[:3]] == [2, 0, 1]
    code, _, err = job(f"data.train={tmp_path}/votes.jsonl", f"data.columns={columns.replace('question', 'query')}")
    assert code == 2
    assert "no column 'query', which data.columns names" in err


def test_most_rows_decide_the_kind_of_texts_though_the_first_ones_differ(tmp_path, job):
    lists = [vote(n) for n in range(60)]  # more than are looked at first
    plain = [vote(n, prompt=f"q {n}", response_a=f'["a {n}"]', response_b=f"b {n}") for n in range(60, 200)]
    assert job(f"data.train={write_votes(tmp_path / 'train.csv', lists + plain)}")[0] == 0
    records = table(tmp_path, "train").to_pylist()
    assert len(records) == 200
    assert records[0]["prompt"] == [lists[0]["prompt"]]
    assert records[100]["response_a"] == ['["a 100"]']


def test_the_better_answer_of_chosen_and_rejected_is_on_either_side(tmp_path, job):
    lines = [json.dumps({"prompt": f"q {n}", "chosen": f"good {n}", "rejected": f"bad {n}"}) for n in range(200)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    code, _, err = job(f"data.train={tmp_path}/pairs.jsonl")
    assert code == 0, err
    assert "drawn" in err
    records = table(tmp_path, "train").to_pylist()
    assert all((row["response_a"][0].startswith("good")) == (row["label"] == 0) for row in records)
    assert 70 < sum(row["label"] for row in records) < 130
