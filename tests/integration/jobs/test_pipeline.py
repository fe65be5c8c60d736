"""The whole product, run as a user runs it."""

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT, SHARED, environment, job_line, ray_head, run_job
from tests.helpers.votes import COLUMNS, write_votes

CONSOLE = [str(Path(sys.executable).with_name("tiebreak"))]
# Few rows and rounds: what is tested is that everything is there and fits together.
SMALL = [
    "data.synthetic.train_rows=300",
    "data.synthetic.test_rows=60",
    "data.folds=2",  # as many as CPUs: both train at the same time
    "data.shard_rows=150",
    "boosters.lightgbm.rounds=30",
    "boosters.xgboost.rounds=30",
]
LANGUAGE_MODEL = "llms=[{name: gemma, demo: {architecture: gemma2}, max_tokens: 256}]"


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


def assert_page_shows(run, metrics, model):
    page = (run / "report/index.html").read_text()
    assert f"{metrics['models'][model]['oof_log_loss']:.4f}" in page
    assert "://" not in page


def test_submitted_job_runs_everything_and_the_same_line_again_does_nothing(tmp_path):
    run = tmp_path / "run"
    with ray_head(tmp_path, cpus=2) as env:
        line = [
            "ray",
            "job",
            "submit",
            "--working-dir",
            ".",
            "--",
            "python",
            *job_line("pipeline", run, *SMALL, "llms=[]"),
        ]
        done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "succeeded" in done.stdout
        (tmp_path / "wrong").write_text("f" * 64)
        other = env | {"RAY_AUTH_TOKEN_PATH": f"{tmp_path}/wrong"}
        refused = subprocess.run(["ray", "job", "list"], env=other, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "token is invalid" in refused.stderr

    with (run / "demo/pairs/test.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    assert_submission_is_sound(run, ids)
    metrics = json.loads((run / "report/metrics.json").read_text())
    assert set(metrics["models"]) == {"lightgbm", "xgboost"}
    assert {"uniform", "class prior"} <= set(metrics["baselines"])
    assert set(metrics["blend"]["variants"]) == {"learned", "linear", "log", "greedy", "equal", "preset"}
    assert_page_shows(run, metrics, "xgboost")

    # What a run saves of its settings is a configuration that repeats it, here through `make demo`.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    again = subprocess.run(
        ["make", "demo", f"CONFIG={run}/settings.json"], cwd=ROOT, env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("cached") == 8
    assert " run\n" not in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_a_language_model_joins_the_blend_and_the_page(tmp_path):
    """It takes a minute more than boosters alone. In test_isolation.py vLLM starts in the fast tests too."""
    run = tmp_path / "run"
    done = run_job("pipeline", run, *SMALL, LANGUAGE_MODEL)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "report/metrics.json").read_text())
    assert set(metrics["models"]) == {"lightgbm", "xgboost", "gemma"}
    assert_page_shows(run, metrics, "gemma")
    again = run_job("pipeline", run, *SMALL, LANGUAGE_MODEL)
    assert again.stdout.count("cached") == 9
    assert " run\n" not in again.stdout


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


def readme_command(containing):
    """The command of the README's code blocks that contains a text, with its continued lines joined."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    (found,) = [line for line in lines if containing in line]
    return shlex.split(found)


@pytest.mark.slow
def test_readme_ingest_line(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    _, *arguments = readme_command("tiebreak ingest")
    done = subprocess.run(
        CONSOLE + arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "300 train, 500 test" in done.stdout


@pytest.mark.slow
def test_boosters_come_close_to_the_best_attainable_score(tmp_path):
    """The demo's votes have known probabilities: the gap that is left is the ruler."""
    run = tmp_path / "run"
    done = run_job("pipeline", run, "llms=[]", "data.folds=5", "data.synthetic.test_rows=10")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run / "report/metrics.json").read_text())
    prior, best = (metrics["baselines"][name]["oof_log_loss"] for name in ("class prior", "truth (best attainable)"))
    reached = min(values["oof_log_loss"] for values in metrics["models"].values())
    assert best < reached < best + 0.25 * (prior - best)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real votes, ../shared/data, is not beside the project")
def test_readme_command_on_real_votes_beats_the_class_prior(tmp_path):
    csv.field_size_limit(10**9)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "votes.csv").symlink_to(SHARED / "kaggle1000.csv")
    with (SHARED / "arena33k_sample.csv").open(newline="", encoding="utf-8") as source:
        rows = list(csv.DictReader(source))
    write_votes(tmp_path / "pairs.csv", rows, [COLUMNS[0], *COLUMNS[3:6]])
    _, *arguments = readme_command("data.test=pairs.csv --set run=runs/mine")
    done = subprocess.run(
        CONSOLE + arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/mine"
    assert_submission_is_sound(run, [row["id"] for row in rows])
    metrics = json.loads((run / "report/metrics.json").read_text())
    prior, learned = metrics["baselines"]["class prior"], metrics["blend"]["variants"]["learned"]
    assert learned["oof_log_loss"] < prior["oof_log_loss"]
    assert learned["ci95"][1] < prior["oof_log_loss"]
