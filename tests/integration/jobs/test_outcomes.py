"""Votes with two, three or four outcomes, from the file to submission and page; and votes in other tools' shapes."""

import csv
import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.commands import run_here, run_job
from tests.helpers.tiny_llms import MAX_TOKENS, make_checkpoint

SETTINGS: dict[str, Any] = {
    "run": "runs/unused",
    "seed": 3,
    "data": {"synthetic": {"train_rows": 400, "test_rows": 40}, "folds": 2, "shard_rows": 200},
    "featurize": {"families": ["length", "style", "overlap"]},
    "boosters": [
        {"name": "lightgbm", "engine": "lightgbm", "rounds": 20, "params": {"num_leaves": 4}},
        {"name": "linear", "engine": "linear"},
    ],
}
NAMES = {2: ["a", "b"], 3: ["a", "b", "tie"], 4: ["a", "b", "tie", "both_bad"]}
WINNERS = ["winner_model_a", "winner_model_b", "winner_tie", "winner_both_bad"]


def configured(folder, outcomes, **changes):
    settings = {**SETTINGS, **changes}
    synthetic = {**settings["data"]["synthetic"], "outcomes": NAMES[outcomes]}
    # Two or three follow from the votes; both_bad is a tie unless it is named.
    settings["data"] = {**settings["data"], "synthetic": synthetic, "outcomes": NAMES[4] if outcomes == 4 else None}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def probabilities(path, outcomes):
    table = pq.read_table(path)
    columns = [name for name in table.column_names if name.startswith("p_")]
    assert columns == ["p_a", "p_b", "p_tie", "p_both_bad"][:outcomes]
    return np.stack([table[name].to_numpy() for name in columns], axis=1)


def assert_run_has_outcomes(run, outcomes, models):
    header, *rows = list(csv.reader((run / "blend/submission.csv").open(newline="")))
    if outcomes == 2:
        assert header == ["id", "winner"]
        assert {row[1] for row in rows} <= {"model_a", "model_b"}
    else:
        assert header == ["id", *WINNERS[:outcomes]]
        assert all(abs(sum(map(float, row[1:])) - 1) < 1e-6 for row in rows)
    assert len(rows) == 40
    metrics = json.loads((run / "report/metrics.json").read_text())
    assert set(metrics["models"]) == set(models)
    assert list(metrics["labels"]) == ["A", "B", "tie", "both bad"][:outcomes]
    assert list(metrics["calibration"]["error"]) == list(metrics["labels"])
    for model in models:
        values = probabilities(run / f"predictions/{model}/train.parquet", outcomes)
        np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-6)
        assert values.std(axis=0).min() > 0  # no outcome is left aside
    return metrics


def test_two_outcomes_and_their_votes_for_other_tools(tmp_path, ray_cluster):
    config, run = configured(tmp_path, 2), tmp_path / "run"
    done = run_here("pipeline", run, config=config)
    assert done.returncode == 0, done.stderr
    metrics = assert_run_has_outcomes(run, 2, ["lightgbm", "linear"])
    assert metrics["baselines"]["uniform"]["oof_log_loss"] == pytest.approx(np.log(2))

    done = run_here("predict", run, f"data.test={run}/demo/pairs/test.csv", config=config)
    assert done.returncode == 0, done.stderr
    (predicted,) = run.glob("predict/*/submission.csv")
    assert predicted.read_text() == (run / "blend/submission.csv").read_text()

    written = tmp_path / "votes.jsonl"
    margins = ["convert.to=trl", f"convert.output={written}", "convert.margins=true", "convert.min_margin=0.05"]
    done = run_here("convert", run, *margins, config=config)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert 0 < len(rows) < 400
    assert all(abs(row["margin"]) >= 0.05 for row in rows)
    assert f"{400 - len(rows)} records left out: a margin below 0.05" in done.stdout
    right = np.mean([row["margin"] > 0 for row in rows])
    assert right == pytest.approx(metrics["blend"]["accuracy"], abs=0.15)

    for output, reason in ((written, "one of the files to read"), (tmp_path / "b.jsonl", "made from other votes")):
        other = [f"data.train={written}", *margins, f"convert.output={output}"]
        done = run_here("convert", run, *other, config=config)
        assert done.returncode == 2
        assert reason in done.stderr
    assert len(written.read_text().splitlines()) == len(rows)

    # What was written is read again, as pairs whose better answer is known.
    done = run_here("ingest", tmp_path / "again", f"data.train={written}", config=config)
    assert done.returncode == 0, done.stderr
    assert "train: format trl" in done.stderr
    assert f"{len(rows)} train" in done.stdout


def test_votes_are_converted_without_folds_and_without_touching_the_run(tmp_path, ray_cluster):
    row = {"prompt": "Why?", "response_a": "yes", "response_b": "no", "pair_id": "1"}
    winners = [("ann", "a"), ("bob", "a"), ("cid", "b"), ("dan", "both_bad")]
    rows = [{**row, "voter": voter, "winner": winner} for voter, winner in winners]
    rows += [{**row, "pair_id": "2", "response_a": "so", "voter": "ann", "winner": "both_bad"}, {**row, "winner": "x"}]
    votes, run = tmp_path / "votes.jsonl", tmp_path / "run"
    votes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configured(tmp_path, 3)
    assert run_here("ingest", run, config=config).returncode == 0
    before = (run / "records/manifest.json").read_bytes()

    def convert(shape: str, name: str) -> str:
        output = ["convert.to=" + shape, f"convert.output={tmp_path / name}"]
        done = run_here("convert", run, f"data.train={votes}", *output, config=config)
        assert done.returncode == 0, done.stderr
        assert "1 row quarantined (1 x unknown winner 'x')" in done.stdout
        assert list((run / "convert/records/quarantine").glob("*.parquet"))
        return done.stdout

    summary = convert("trl", "votes-trl.jsonl")
    assert len((tmp_path / "votes-trl.jsonl").read_text().splitlines()) == 1
    assert "1 record left out: both are bad" in summary
    assert "2 votes against their pair's winner are not in trl" in summary
    assert "the voters of 4 votes are not in trl" in summary
    convert("arena", "arena.jsonl")
    arena = [json.loads(line) for line in (tmp_path / "arena.jsonl").read_text().splitlines()]
    assert [(vote["judge"], vote["winner"]) for vote in arena] == [
        *[("ann", "model_a"), ("bob", "model_a"), ("cid", "model_b"), ("dan", "tie (bothbad)")],
        ("ann", "tie (bothbad)"),
    ]
    assert "2 votes that both are bad are ties in kaggle" in convert("kaggle", "kaggle.csv")
    kaggle = list(csv.DictReader((tmp_path / "kaggle.csv").open(newline="")))
    assert [row["voter"] for row in kaggle] == ["ann", "bob", "cid", "dan", "ann"]
    assert "winner_both_bad" not in kaggle[0]

    ties = tmp_path / "ties.jsonl"
    ties.write_text(json.dumps({**row, "winner": "tie"}))
    done = run_here(
        "convert", run, f"data.train={ties}", "convert.to=trl", f"convert.output={tmp_path}/no.jsonl", config=config
    )
    assert done.returncode == 2
    assert "no record can be written as trl (1 x a tie)" in done.stderr
    assert not list(tmp_path.glob("no*"))
    for output, reason in ((votes, "one of the files to read"), (tmp_path / "votes.csv", "written as .jsonl")):
        done = run_here(
            "convert", run, f"data.train={votes}", "convert.to=trl", f"convert.output={output}", config=config
        )
        assert done.returncode == 2
        assert reason in done.stderr
    assert len(votes.read_text().splitlines()) == 6
    assert (run / "records/manifest.json").read_bytes() == before


def test_four_outcomes(tmp_path, ray_cluster):
    config, run = configured(tmp_path, 4), tmp_path / "run"
    done = run_here("pipeline", run, config=config)
    assert done.returncode == 0, done.stderr
    assert_run_has_outcomes(run, 4, ["lightgbm", "linear"])
    page = (run / "report/index.html").read_text()
    assert "P(both bad)" in page


@pytest.mark.slow
@pytest.mark.parametrize("outcomes", [2, 4])
def test_encoder_classifier_and_judge_follow(tmp_path, outcomes):
    """The demo's classifier and a judge score through vLLM; the encoder is trained."""
    judge = make_checkpoint(tmp_path / "judge", "Gemma2", "ForCausalLM")
    encoder = {
        "name": "encoder",
        "scratch": {"architecture": "bert", "layers": 2, "hidden": 32, "heads": 2, "vocabulary": 600},
        "max_tokens": 96,
        "stages": [{"train": "all", "epochs": 1, "learning_rate": 1e-3}],
    }
    llms = [
        {"name": "gemma", "demo": {"architecture": "gemma2"}, "max_tokens": 256, "swap": "both"},
        {"name": "judge", "mode": "judge", "checkpoint": judge, "max_tokens": MAX_TOKENS, "swap": "both"},
    ]
    config = configured(tmp_path, outcomes, finetune={"encoders": [encoder]}, llms=llms)
    done = run_job("pipeline", tmp_path / "run", config=config)
    assert done.returncode == 0, done.stderr
    assert_run_has_outcomes(tmp_path / "run", outcomes, ["lightgbm", "linear", "encoder", "gemma", "judge"])


@pytest.mark.slow
def test_the_side_of_chosen_answers_tells_nothing(tmp_path):
    """Random texts as chosen and rejected: the sides are drawn, so no model beats the prior."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{n}" for n in range(300)])

    def text():
        return " ".join(rng.choice(words, rng.integers(5, 40)))

    votes = tmp_path / "votes.jsonl"
    rows = [{"prompt": text(), "chosen": text(), "rejected": text()} for _ in range(2000)]
    votes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lightgbm, linear = SETTINGS["boosters"]
    boosters = [{**lightgbm, "swap": "none"}, linear]  # else the sides are exchanged anyway
    settings = {**SETTINGS, "data": {"train": str(votes), "folds": 5}, "boosters": boosters}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    done = run_job("pipeline", tmp_path / "run", config=str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr
    assert "A and B are drawn by a hash of the texts" in done.stderr
    metrics = json.loads((tmp_path / "run/report/metrics.json").read_text())
    prior = metrics["baselines"]["class prior"]["oof_log_loss"]
    assert prior == pytest.approx(np.log(2), abs=0.002)
    for model in metrics["models"].values():
        assert model["ci95"][1] > prior
        assert model["oof_log_loss"] > prior - 0.002
