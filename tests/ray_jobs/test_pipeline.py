"""The whole product, run as a user runs it."""

import csv
import json
import subprocess
import sys
import time

import pytest

from .commands import ROOT, SHARED, job_line, ray_head, run_job
from .votes import COLUMNS

# Few rows and rounds: what is tested is that everything is there and fits together.
SMALL = [
    "data.synthetic.train_rows=300",
    "data.synthetic.test_rows=60",
    "data.folds=3",
    "data.shard_rows=150",
    "boosters.lightgbm.rounds=30",
    "boosters.xgboost.rounds=30",
]


def submission(run):
    with (run / "blend/submission.csv").open(newline="") as file:
        return list(csv.reader(file))


def assert_submission_is_sound(run, ids):
    header, *rows = submission(run)
    assert header == ["id", "winner_model_a", "winner_model_b", "winner_tie"]
    assert [row[0] for row in rows] == ids
    values = [[float(cell) for cell in row[1:]] for row in rows]
    assert all(abs(sum(row) - 1) < 1e-6 for row in values)
    assert all(0 < value < 1 for row in values for value in row)


def test_submitted_job_runs_everything_and_the_same_line_again_does_nothing(tmp_path):
    run = tmp_path / "run"
    with ray_head(tmp_path, cpus=2) as env:
        line = ["ray", "job", "submit", "--working-dir", ".", "--", "python", *job_line("pipeline", run, *SMALL)]
        line[0] = f"{sys.prefix}/bin/ray"
        path = f"{sys.prefix}/bin:{env['PATH']}"
        done = subprocess.run(line, cwd=ROOT, env=env | {"PATH": path}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "succeeded" in done.stdout
        refused = subprocess.run(
            [line[0], "job", "list"], env=env | {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "f" * 64},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert refused.returncode != 0

    with (run / "demo/pairs/test.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert_submission_is_sound(run, ids)
    metrics = json.loads((run / "report/metrics.json").read_text())
    assert set(metrics["models"]) == {"lightgbm", "xgboost", "gemma", "llama"}
    assert {"uniform", "class prior"} <= set(metrics["baselines"])
    assert set(metrics["blend"]["variants"]) == {"learnt", "equal", "preset"}
    page = (run / "report/index.html").read_text()
    assert f"{metrics['models']['gemma']['oof_log_loss']:.4f}" in page
    assert "http" not in page.replace('"http://www.w3.org', "")

    before = {
        path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "settings.json"
    }
    start = time.monotonic()
    again = run_job("pipeline", run, *SMALL)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("cached") == 10
    assert " run\n" not in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert time.monotonic() - start < 30


def test_the_upload_is_small_whatever_lies_in_runs(tmp_path):
    """The package that `ray job submit --working-dir .` uploads, made by Ray's own code."""
    from ray._private.runtime_env.packaging import create_package, get_uri_for_directory

    (ROOT / "runs").mkdir(exist_ok=True)
    ballast = ROOT / "runs/ballast-of-a-test"
    ballast.write_bytes(b"x" * 8_000_000)
    try:
        uri = get_uri_for_directory(str(ROOT), include_gitignore=True)
        create_package(str(ROOT), tmp_path / "package.zip", include_gitignore=True)
    finally:
        ballast.unlink()
    assert uri.startswith("gcs://")
    assert (tmp_path / "package.zip").stat().st_size < 5 * 2**20
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", tmp_path / "package.zip"], capture_output=True, text=True, check=True
    ).stdout
    assert "ray_jobs/pipeline.py" in listing
    assert ".venv" not in listing
    assert "runs/" not in listing


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared folder of real votes is not beside the project")
def test_real_votes_are_predicted_better_than_by_the_class_prior(tmp_path):
    """Boosters alone: the demo's tiny language models know nothing of real votes."""
    csv.field_size_limit(10**9)
    columns = [COLUMNS[0], *COLUMNS[3:6]]
    with (
        (SHARED / "arena33k_sample.csv").open(newline="", encoding="utf-8") as source,
        (tmp_path / "test.csv").open("w", newline="", encoding="utf-8") as target,
    ):
        rows = list(csv.DictReader(source))
        writer = csv.DictWriter(target, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    run = tmp_path / "run"
    done = run_job(
        "pipeline", run, f"data.train={SHARED}/kaggle1000.csv", f"data.test={tmp_path}/test.csv", "llms=[]",
        "data.folds=5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_submission_is_sound(run, [row["id"] for row in rows])
    metrics = json.loads((run / "report/metrics.json").read_text())
    prior, learnt = metrics["baselines"]["class prior"], metrics["blend"]["variants"]["learnt"]
    assert learnt["oof_log_loss"] < prior["oof_log_loss"]
    assert learnt["ci95"][1] < prior["oof_log_loss"]
