"""The leaderboard job: from votes, from a run with a blend, and on input that cannot be rated."""

import csv
import json

import numpy as np
import pytest
import yaml

from report.numbers import number_text
from tests.helpers.commands import SHARED, run_here
from tests.helpers.page import read_page

MODELS = ("ant", "bee", "cat", "dog", "elk")
HEADER = ("id", "model_a", "model_b", "prompt", "response_a", "response_b")
WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")


def write_votes(path, rows, voted=True):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*HEADER, *(WINNERS if voted else ())))
        writer.writerows(rows)


def vote_rows(count, seed=0, voted=True, models=MODELS):
    """Votes in which a later model writes longer answers, and longer answers win more often."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        a, b = rng.choice(len(models), 2, replace=False)
        lengths = [int(rng.poisson(10 + 3 * model)) + 1 for model in (a, b)]
        lead = (lengths[0] - lengths[1]) / 5
        chances = np.exp([lead / 2, -lead / 2, -0.7])
        winner = rng.choice(3, p=chances / chances.sum())
        texts = [json.dumps([f"answer {n} " + "word " * length]) for length in lengths]
        row = [f"{seed}-{n}", models[a], models[b], json.dumps([f"prompt {seed} {n}"]), *texts]
        rows.append([*row, *np.eye(3, dtype=int)[winner]] if voted else row)
    return rows


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    settings = {
        "run": "runs/unused",
        "data": {"folds": 3},
        "featurize": {"families": ["length"]},
        "boosters": [{"name": "linear", "engine": "linear", "features": ["length"]}],
        "leaderboard": {"least_votes": 100},
    }
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def leaderboard(run, config, *overrides):
    return run_here("leaderboard", run, *overrides, config=config)


def check_page(run):
    """Every number of the page is marked, and is the one of ratings.json."""
    result = json.loads((run / "leaderboard/ratings.json").read_text())
    page = read_page((run / "leaderboard/index.html").read_text())
    assert not page.unmarked
    assert len(page.numbers) > 50
    for shown in page.numbers:
        keys = [part.replace("~1", "/").replace("~0", "~") for part in shown.key.split("/")[1:]]
        value = result
        for key in keys:
            value = value[int(key)] if isinstance(value, list) else value[key]
        assert shown.text == number_text(value, shown.form), shown.key


def ratings(run):
    with (run / "leaderboard/ratings.csv").open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def votes(tmp_path_factory):
    path = tmp_path_factory.mktemp("votes") / "votes.csv"
    write_votes(path, vote_rows(400))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster, config, votes):
    """A run with a blend, on voted pairs and on more pairs without votes."""
    run, pairs = tmp_path_factory.mktemp("run") / "run", votes.parent / "pairs.csv"
    write_votes(pairs, vote_rows(600, seed=1, voted=False), voted=False)
    data = (f"data.train={votes}", f"data.test={pairs}")
    done = run_here("pipeline", run, *data, config=config)
    assert done.returncode == 0, done.stderr
    done = leaderboard(run, config, *data)
    assert done.returncode == 0, done.stderr
    return run, data, done.stdout


def test_votes_alone_rate_all_models(tmp_path, ray_cluster, config, votes):
    run = tmp_path / "run"
    done = leaderboard(run, config, f"data.train={votes}")
    assert done.returncode == 0, done.stderr
    table = ratings(run)
    assert sorted(table) == sorted(MODELS)
    assert sum(float(row["votes"]) for row in table.values()) == 800  # a vote counts for both models
    assert table["elk"]["rank"] == "1"
    assert table["ant"]["rank"] == "5"
    for row in table.values():
        assert float(row["lower"]) < float(row["rating"]) < float(row["upper"])
        assert int(row["rank_lower"]) <= int(row["rank"]) <= int(row["rank_upper"])
        assert float(row["win_rate_lower"]) < float(row["win_rate"]) < float(row["win_rate_upper"])
    page = (run / "leaderboard/index.html").read_text()
    check_page(run)
    assert all(name in page for name in MODELS)
    assert "400 votes" in done.stdout
    again = leaderboard(run, config, f"data.train={votes}")
    assert "cached" in again.stdout.split("leaderboard")[1].splitlines()[0]


def test_a_finished_blend_makes_ratings_more_exact(finished):
    run, _, stdout = finished
    result = json.loads((run / "leaderboard/ratings.json").read_text())
    assert result["predictions"] == "blend"
    assert result["records"] == {"voted": 400, "all": 1000}
    assert set(result["methods"]) == {"votes", "powered", "hierarchical"}
    assert result["method"] == min(result["methods"], key=lambda name: result["methods"][name]["log_loss"])
    assert {part["slice"] for part in result["slices"]} <= {"turns", "code", "language"}
    assert "5 models, 400 votes" in stdout
    check_page(run)


@pytest.mark.parametrize("method", ["powered", "hierarchical"])
def test_methods_with_predictions(finished, config, method):
    run, data, _ = finished
    done = leaderboard(run, config, *data, f"leaderboard.method={method}", "leaderboard.model=davidson")
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "leaderboard/ratings.json").read_text())
    assert result["method"] == method
    assert result["alone"]["equivalent_votes"] > 400
    assert "as exact as about" in done.stdout
    table = ratings(run)
    assert table["elk"]["rank"] == "1"
    assert float(table["elk"]["votes_rating"]) != float(table["elk"]["rating"])


def test_style_control_takes_the_length_out(finished, config):
    run, data, _ = finished
    spread = {}
    for style in ("[]", "[length]"):
        done = leaderboard(run, config, *data, "leaderboard.method=votes", f"leaderboard.style={style}")
        assert done.returncode == 0, done.stderr
        values = [float(row["rating"]) for row in ratings(run).values()]
        spread[style] = max(values) - min(values)
    assert spread["[length]"] < 0.6 * spread["[]"]
    result = json.loads((run / "leaderboard/ratings.json").read_text())
    assert result["style"]["length"] > 0.3
    done = leaderboard(run, config, *data, "leaderboard.style=[lenght]")
    assert done.returncode == 2
    assert "no feature of style 'lenght'" in done.stderr


def test_bootstrap_intervals_are_those_of_the_formula(finished, config):
    run, data, _ = finished
    widths = {}
    for intervals in ("sandwich", "bootstrap"):
        done = leaderboard(
            run, config, *data, "leaderboard.method=votes", f"leaderboard.intervals={intervals}",
            "leaderboard.repetitions=200",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        widths[intervals] = np.mean([float(row["upper"]) - float(row["lower"]) for row in ratings(run).values()])
    assert widths["bootstrap"] == pytest.approx(widths["sandwich"], rel=0.2)


def bad_rows(kind):
    if kind == "no names":
        return vote_rows(60, models=("", ""))
    if kind == "one model":
        return [[row[0], "ant", "ant", *row[3:]] for row in vote_rows(60)]
    raise ValueError(kind)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("no names", "none of the 60 records names its models"), ("one model", "have one model on both sides")],
)
def test_votes_that_cannot_be_rated_say_why(tmp_path, ray_cluster, config, kind, reason):
    path = tmp_path / "votes.csv"
    write_votes(path, bad_rows(kind))
    done = leaderboard(tmp_path / "run", config, f"data.train={path}")
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_models_that_are_not_comparable_or_never_win_are_said(tmp_path, ray_cluster, config):
    left, right = vote_rows(90, models=("ant", "bee", "cat")), vote_rows(60, seed=2, models=("dog", "elk"))
    never = [[f"n{n}", "fox", "ant", json.dumps([f"other {n}"]), '["a"]', '["b"]', 0, 1, 0] for n in range(6)]
    same = [["s", "ant", "ant", '["p"]', '["a"]', '["b"]', 1, 0, 0]]
    path, run = tmp_path / "votes.csv", tmp_path / "run"
    write_votes(path, [*left, *right, *never, *same])
    for shrinkage in ("auto", "0"):
        done = leaderboard(run, config, f"data.train={path}", f"leaderboard.shrinkage={shrinkage}")
        assert done.returncode == 0, done.stderr
        table = ratings(run)
        assert all(np.isfinite(float(row["rating"])) for row in table.values())
        assert {table[name]["component"] for name in ("dog", "elk")} == {"2"}
        assert "not comparable with the first models" in done.stdout
        assert "without a win or a tie, rated by shrinkage: fox" in done.stdout
        assert "1 records have one model on both sides" in done.stdout
        assert ("would be infinite" in done.stdout) == (shrinkage == "0")


def test_predictions_that_are_not_there_are_named(tmp_path, ray_cluster, config, votes):
    for name, reason in (("blend", "no blend of these records"), ("gpt", "no predictions of 'gpt'")):
        done = leaderboard(tmp_path / "run", config, f"data.train={votes}", f"leaderboard.predictions={name}")
        assert done.returncode == 2
        assert reason in done.stderr


def test_real_votes_are_rated(tmp_path, ray_cluster, config):
    path = SHARED / "arena33k_sample.csv"
    if not path.exists():
        pytest.skip("the folder of real votes, ../shared/data, is not beside the project")
    done = leaderboard(tmp_path / "run", config, f"data.train={path}")
    assert done.returncode == 0, done.stderr
    names = list(ratings(tmp_path / "run"))
    assert names.index("gpt-4") < names.index("dolly-v2-12b")
