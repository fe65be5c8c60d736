"""The job predict on a small finished run of two boosters; with an encoder and language models, slowly."""

import json
import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from core import cli
from core.lock import Lease, machine_identity
from ray_jobs.blend import blend
from ray_jobs.featurize import featurize
from ray_jobs.ingest import ingest
from ray_jobs.train_boosters import train_boosters
from tests.helpers.commands import run_job
from tests.helpers.votes import COLUMNS, vote, write_votes
from train.boosters import predict as booster_predictions
from votes import predictions
from votes.schema import PROBABILITIES

SETTINGS = {
    "data": {"folds": 3, "shard_rows": 16},
    "featurize": {
        "families": [
            *("length", "style", "similarity"),
            # Words of which few are in a record stay sparse, behind all other columns.
            {"family": "ngrams", "name": "words", "min_df": 0.02, "max_features": 40, "view": "difference"},
            {"family": "word2vec", "dimensions": 4, "epochs": 1},
        ],
    },
    "boosters": [
        {
            "name": "trees",
            "engine": "lightgbm",
            "rounds": 10,
            "fold_weights": "inverse_loss",
            "params": {"min_data_in_leaf": 3, "feature_fraction": 0.5},
        },
        {"name": "linear", "engine": "linear", "features": ["length", "words", "word2vec"]},
    ],
    "blend": {"submission": "equal", "preset": {"trees": 1}},
}
PAIRS = [COLUMNS[0], *COLUMNS[3:6]]


def pair(number, **changes):
    """A vote whose answers share few words with those of others."""
    row = vote(number)
    for place, name in enumerate(("response_a", "response_b")):
        words = " ".join(f"word{(number * (5 + place) + n * n) % 37}" for n in range(3 + number % 4))
        row[name] = json.dumps([f"{json.loads(row[name])[0]}{words}"])
    return row | changes


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster):
    """A folder with a finished run, its configuration, and its test records."""
    folder = tmp_path_factory.mktemp("predict")
    write_votes(folder / "train.csv", [pair(n) for n in range(90)])
    # Empty and equal answers get fallback probabilities.
    test = [pair(n) for n in range(200, 220)]
    test[3] |= {"response_a": "[null]"}
    test[7] |= {"response_b": test[7]["response_a"]}
    write_votes(folder / "test.csv", test, PAIRS)
    data = {**SETTINGS["data"], "train": f"{folder}/train.csv", "test": f"{folder}/test.csv"}  # type: ignore[dict-item]
    (folder / "config.yaml").write_text(yaml.safe_dump({**SETTINGS, "run": f"{folder}/run", "data": data}))
    for job in (ingest, featurize, train_boosters, blend):
        assert cli.main(cli.Job(job.__name__, None, job), ["--config", f"{folder}/config.yaml"]) == 0
    return folder


@pytest.fixture
def job(finished, capsys, monkeypatch):
    """Runs predict, as its command does, with the settings that the run saved and changes to them."""

    def run(*overrides, code=0, force=False):
        line = ["predict", "--config", f"{finished}/run/settings.json", *(["--force"] if force else [])]
        for override in overrides:
            line += ["--set", override]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("ray_jobs.predict", run_name="__main__")
        output = capsys.readouterr()
        assert ended.value.code == code, output.err
        return output

    return run


@pytest.fixture
def a_copy(finished, tmp_path):
    """A copy of the run, to break."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/predict", ignore_errors=True)
    return tmp_path / "run"


def stamps(run):
    """When each file of a run was written, but for those of predict."""
    return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and "predict" not in path.parts}


def predicted(run, stem):
    """The folder of a prediction."""
    (folder,) = run.glob(f"predict/{stem}-????????")
    return folder


def assert_same(found, expected, models, rows=slice(None)):
    """The predictions in two folders agree."""
    tables = [pq.read_table(folder / "predictions.parquet") for folder in (found, expected)]
    assert tables[0].column_names == ["id", *(f"{name}_{p}" for name in models for p in PROBABILITIES[:3])]
    assert tables[0]["id"].to_pylist() == tables[1]["id"].to_pylist()[rows]
    for column in tables[0].column_names[1:]:
        values = [table[column].to_numpy() for table in tables]
        np.testing.assert_allclose(values[0], values[1][rows], rtol=0, atol=1e-9, err_msg=column)


def test_the_runs_own_test_file_gives_its_numbers_and_changes_nothing(finished, job):
    run = finished / "run"
    before = stamps(run)
    output = job()
    folder = predicted(run, "test")
    assert_same(folder, run / "blend", ["trees", "linear", "blend"])
    assert (folder / "submission.csv").read_text() == (run / "blend/submission.csv").read_text()
    assert f"{folder}/submission.csv" in output.out
    made = stamps(folder.parent.parent)
    assert made == before
    own = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert " run\n" not in job().out
    assert {path: path.stat().st_mtime_ns for path in own} == own
    job(force=True)
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in own.items())
    assert_same(folder, run / "blend", ["trees", "linear", "blend"])
    assert stamps(run) == before


def test_one_record_in_a_json_file_prints_its_probabilities(finished, job, tmp_path):
    run, record = finished / "run", {name: pair(211)[name] for name in PAIRS}
    (tmp_path / "one pair.json").write_text(json.dumps(record))
    output = job(f"data.test={tmp_path}/one pair.json")
    folder = predicted(run, "one-pair")
    assert_same(folder, run / "blend", ["trees", "linear", "blend"], slice(11, 12))
    row = pq.read_table(folder / "predictions.parquet").to_pylist()[0]
    assert f"211: A {row['blend_p_a']:.4f}, B {row['blend_p_b']:.4f}, tie {row['blend_p_tie']:.4f}" in output.out
    record["response_a"] = json.dumps(["another answer"])
    (tmp_path / "one pair.json").write_text(json.dumps(record))
    job(f"data.test={tmp_path}/one pair.json")
    assert len(list(run.glob("predict/one-pair-*"))) == 2


def test_rows_that_cannot_be_used_are_in_quarantine(finished, job, tmp_path):
    rows = [pair(205), pair(206, prompt='["never closed')]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({name: row[name] for name in PAIRS}) + "\n" for row in rows))
    output = job(f"data.test={tmp_path}/new.jsonl")
    folder = predicted(finished / "run", "new")
    assert_same(folder, finished / "run/blend", ["trees", "linear", "blend"], slice(5, 6))
    assert pq.read_table(folder / "records/quarantine")["id"].to_pylist() == ["206"]
    assert f"see {folder}/records/quarantine" in output.out


def blend_again(run, override):
    line = ["--config", f"{run}/settings.json", "--set", f"run={run}", "--set", override]
    assert cli.main(cli.Job("blend", None, blend), line) == 0


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("blend.submission=preset", "its weight in the blend is zero"),
        ("blend.models=[trees]", "it is not among the models of the blend"),
    ],
)
def test_models_left_out_of_the_blend_are_named_and_not_asked(job, a_copy, override, reason):
    blend_again(a_copy, override)
    shutil.rmtree(a_copy / "models/linear")
    output = job(f"run={a_copy}", override)
    assert f"linear is left out: {reason}" in output.err
    folder = predicted(a_copy, "test")
    assert_same(folder, a_copy / "blend", ["trees", "blend"])
    assert json.loads((folder / "manifest.json").read_text())["left_out"] == {"linear": reason}
    assert not (folder / "predictions/linear").exists()


def test_a_record_that_no_weighted_model_predicts_gets_what_the_others_say(job, a_copy, monkeypatch):
    blend_again(a_copy, "blend.submission=preset")
    read = predictions.read_predictions

    def without_the_first(run, records, model, split):
        values = read(run, records, model, split)
        values[0] = np.nan if model == "trees" else values[0]
        return values

    monkeypatch.setattr(predictions, "read_predictions", without_the_first)
    # A worker would not see it.
    monkeypatch.setattr("infer.new_pairs.run_on_worker", lambda run, work, *arguments: work(*arguments))
    output = job(f"run={a_copy}", "blend.submission=preset")
    assert "some records lack predictions of trees" in output.err
    first, second = pq.read_table(predicted(a_copy, "test") / "predictions.parquet").to_pylist()[:2]
    assert first["trees_p_a"] is None
    assert first["blend_p_a"] == pytest.approx(first["linear_p_a"], abs=1e-9)
    assert second["blend_p_a"] == pytest.approx(second["trees_p_a"], abs=1e-9)


def test_without_pairs_and_with_a_renamed_column_it_is_exit_2(finished, job, tmp_path):
    assert "data.test: no pairs to predict" in job("data.test=null", code=2).err
    text = (finished / "test.csv").read_text().replace("response_a", "answer_a", 1)
    (tmp_path / "renamed.csv").write_text(text)
    error = job(f"data.test={tmp_path}/renamed.csv", code=2).err
    assert "missing column response_a" in error
    assert "The columns are 'answer_a', 'id', 'prompt', 'response_b'" in error
    assert not list((finished / "run/predict").glob("renamed*"))


@pytest.mark.parametrize("stage", ["records", "features", "models/trees", "predictions/linear", "blend"])
def test_another_schema_version_is_exit_2_with_both(job, a_copy, stage):
    path = a_copy / stage / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    error = job(f"run={a_copy}", code=2).err
    assert f"{a_copy}/{stage}: built with schema version 99, this code has 2" in error
    assert not (a_copy / "predict").exists()


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("models/trees/fold-1", "train_boosters/trees lacks files, or they changed: fold-1/"),
        ("models/linear", "train_boosters/linear is not built yet, or a job"),
        ("predictions/trees", "predictions/trees: trees is not built yet"),
        ("features/word2vec/vectors.parquet", "featurize lacks files, or they changed: word2vec/vectors.parquet"),
        ("blend", "blend is not built yet, or a job"),
        ("records", "records is not built yet"),
    ],
)
def test_what_is_missing_of_the_run_is_exit_2_with_its_name(job, a_copy, lost, reason):
    path = a_copy / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    error = job(f"run={a_copy}", code=2).err
    assert reason in error
    assert "; rebuilding" not in error
    assert not (a_copy / "predict").exists()


def test_a_model_that_is_not_what_was_written_is_exit_2_with_its_name(job, a_copy):
    path = a_copy / "models/trees/fold-1/model.txt"
    text = path.read_bytes()
    start = text.index(b"leaf_value=") + len(b"leaf_value=")
    end = text.index(b"\n", start)
    path.write_bytes(text[:start] + text[start:end].replace(b"1", b"7") + text[end:])
    assert f"{path}: the file has changed since it was written" in job(f"run={a_copy}", code=2).err


def test_a_run_that_is_rebuilt_meanwhile_is_exit_2_and_leaves_no_mixture(job, a_copy, monkeypatch):
    real = booster_predictions.predict_boosters

    def then_trained_again(*arguments, **named):
        results = real(*arguments, **named)
        (a_copy / "models/trees/manifest.json").unlink()
        return results

    monkeypatch.setattr("infer.predictors.predict_boosters", then_trained_again)
    error = job(f"run={a_copy}", code=2).err
    assert "another job has rebuilt this in the meantime: models/trees" in error
    (left,) = (a_copy / "predict").iterdir()
    assert [path.parent.name for path in left.glob("predictions/*/*.parquet")] == ["linear"]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("boosters.trees.rounds=6", "train_boosters/trees was built with other settings: rounds"),
        ("boosters.trees.fold_weights=equal", "train_boosters/trees was built with other settings: fold_weights"),
        ("featurize.families.word2vec.epochs=2", "other settings: featurize.word2vec.epochs"),
        ("data.folds=4", "ingest was built with other settings: folds (3 then, 4 now)"),
        ("blend.length_debias=true", "blend was built with other settings: length_debias (false then, true now)"),
    ],
)
def test_other_settings_than_those_of_the_run_are_exit_2_with_their_names(finished, job, override, reason):
    before = stamps(finished / "run")
    assert reason in job(override, code=2).err
    assert stamps(finished / "run") == before


EVERYTHING = {
    "run": "runs/unused",
    "data": {"synthetic": {"train_rows": 120, "test_rows": 40}, "folds": 2, "shard_rows": 32},
    "finetune": {
        "encoders": [
            {
                "name": "encoder",
                "scratch": {"architecture": "bert", "layers": 1, "hidden": 32, "heads": 2, "vocabulary": 600},
                "max_tokens": 96,
                "stages": [{"train": "all", "epochs": 1, "learning_rate": 1e-3}],
            }
        ],
    },
    "llms": [
        {"name": "llama", "demo": {"architecture": "llama"}, "max_tokens": 128},
        {
            "name": "gemma",
            "demo": {"architecture": "gemma2"},
            "max_tokens": 128,
            "swap": "none",
            "cascade": {"model": "llama", "share": 0.3},
        },
    ],
    "blend": {"submission": "preset", "preset": {"encoder": 1, "gemma": 1}},
}


@pytest.mark.slow
def test_encoders_and_language_models_give_the_runs_numbers(tmp_path):
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(EVERYTHING))
    done = run_job("pipeline", run, config=str(config))
    assert done.returncode == 0, done.stderr
    before = stamps(run)

    def job(pairs: Path) -> str:
        done = run_job("predict", run, f"data.test={pairs}", config=str(config))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    output = job(run / "demo/pairs/test.csv")
    # The blend does not weigh llama, but gemma's cascade asks it.
    assert "left out" not in output
    assert (predicted(run, "test") / "predictions/llama/test.parquet").exists()
    assert_same(predicted(run, "test"), run / "blend", ["encoder", "gemma", "blend"])
    assert stamps(run) == before


def test_a_blend_that_weighs_no_model_predicts_all_the_same(finished, a_copy, job):
    path = a_copy / "blend/weights.json"
    made = json.loads(path.read_text())
    made["blender"] |= {"pool": "log", "weights": [0.0, 0.0]}
    path.write_text(json.dumps(made, indent=2).ljust(path.stat().st_size))
    job(f"run={a_copy}", f"data.test={finished}/test.csv")
    assert len(pq.read_table(predicted(a_copy, "test") / "predictions.parquet")) == 20


def test_two_predictions_of_the_same_pairs_do_not_meet(finished, a_copy, job):
    job(f"run={a_copy}", f"data.test={finished}/test.csv")
    lock = predicted(a_copy, "test") / ".lock"
    lock.mkdir(exist_ok=True)
    alive = Lease("ada", "here", os.getppid(), "predict", "then", machine_identity())
    (lock / "other.json").write_text(json.dumps(vars(alive)))
    assert "ada on here" in job(f"run={a_copy}", f"data.test={finished}/test.csv", code=2, force=True).err
