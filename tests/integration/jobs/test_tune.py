"""The search as a job: its files, what it does not repeat, and the training with its result."""

import csv
import dataclasses
import json
import re
import shutil

import pytest

from core.errors import InputError
from core.run import Run
from core.settings.loader import load_settings
from ray_jobs.featurize import featurize
from ray_jobs.ingest import ingest
from ray_jobs.train_boosters import train_boosters
from ray_jobs.tune import tune
from tests.helpers.votes import vote, write_votes
from tune.search import TrialResult
from tune.stage import _model_names, _trial_fingerprint, best_trial, search_stage

CONFIG = """
data: {folds: 3, shard_rows: 60}
featurize: {families: [length, style]}
boosters: [{name: small, engine: xgboost, rounds: 20, early_stopping_rounds: 5, checkpoint_every: 10}]
tune:
  - booster: small
    trials: 3
    folds: 3
    grace_rounds: 20
    space: {rounds: {low: 10, high: 20, integer: true}, eta: {low: 0.05, high: 0.5, log: true}}
"""


def run_with(folder, *overrides):
    return Run(load_settings(CONFIG, "test.yaml", [f"run={folder}/run", f"data.train={folder}/votes.csv", *overrides]))


@pytest.fixture(scope="module")
def searched(tmp_path_factory, ray_cluster):
    folder = tmp_path_factory.mktemp("tune")
    write_votes(folder / "votes.csv", [vote(n) for n in range(120)])
    run = run_with(folder)
    ingest(run)
    featurize(run)
    with pytest.raises(InputError, match="the search for its parameters is missing"):
        train_boosters(run)
    (result,) = tune(run)
    return folder, run, result


def trials(run):
    text = run.folder.read_bytes("tune/small/trials.csv").decode()
    return list(csv.DictReader(text.splitlines()))


def test_table_and_best_agree(searched):
    _, run, result = searched
    table = trials(run)
    best = run.folder.read_json("tune/small/best.json")
    assert [row["trial"] for row in table] == ["0", "1", "2"]
    least = min(table, key=lambda row: float(row["log_loss"]))
    assert best["trial"] == int(least["trial"])
    assert best["log_loss"] == float(least["log_loss"])
    assert best["parameters"] == {"rounds": int(least["rounds_limit"]), "eta": float(least["eta"])}
    assert f"best of 3 trials {best['log_loss']:.4f}" in result.notes[0]


def test_training_takes_the_best_parameters(searched):
    _, run, _ = searched
    (trained,) = train_boosters(run)
    best = run.folder.read_json("tune/small/best.json")
    settings = json.loads(run.folder.read_bytes("models/small/manifest.json"))["settings"]
    assert settings["params"]["eta"] == best["parameters"]["eta"]
    assert settings["rounds"] == best["parameters"]["rounds"]
    assert not trained.cached
    assert train_boosters(run)[0].cached


def test_the_best_trials_models_are_used_as_they_are(searched, monkeypatch):
    """With as many folds as the data has. A model that is trained again is the same to the byte."""
    _, run, _ = searched
    kept = {name for name in (run.folder / "tune/small").files() if name.startswith("models/")}
    assert len(kept) == 6
    train_boosters(run)
    reused = {n: run.folder.read_bytes(f"models/small/fold-{n}/model.ubj") for n in range(3)}
    assert [run.folder.read_bytes(f"tune/small/{name}") for name in sorted(kept) if name.endswith(".model")] == list(
        reused.values()
    )
    assert all(
        json.loads(run.folder.read_bytes(f"models/small/fold-{n}/manifest.json"))["metrics"]["taken_from_search"]
        for n in range(3)
    )
    monkeypatch.setattr("tune.stage.SearchResult.model", property(lambda self: lambda fold: None))
    (trained,) = train_boosters(dataclasses.replace(run, force=True))
    assert not trained.cached
    assert {n: run.folder.read_bytes(f"models/small/fold-{n}/model.ubj") for n in range(3)} == reused
    manifest = json.loads(run.folder.read_bytes("models/small/fold-0/manifest.json"))
    assert not manifest["metrics"]["taken_from_search"]


def test_more_trials_keep_the_finished_ones(searched):
    folder, run, _ = searched
    before = run.folder.read_json("tune/small/trials/00001.json")
    (again,) = tune(run)
    assert again.cached
    more = run_with(folder, "tune.0.trials=4")
    (result,) = tune(more)
    assert not result.cached
    assert run.folder.read_json("tune/small/trials/00001.json") == before
    assert len(trials(run)) == 4


@pytest.mark.slow
def test_corrupt_files_and_fewer_trials_end_in_a_finished_search(searched, tmp_path, capsys):
    folder, run, _ = searched
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    run = run_with(tmp_path, f"data.train={folder}/votes.csv", "tune.0.trials=4")
    tune(run)
    losses = [row["log_loss"] for row in trials(run)]
    search = tmp_path / "run/tune/small"
    best = run.folder.read_json("tune/small/best.json")["trial"]
    (search / f"trials/{best:05d}.json").write_text('{"numb')
    (model,) = search.rglob("fold-1.model")
    model.write_bytes(model.read_bytes()[:-7] + b"damaged")
    tune(run)
    assert f"trials/{best:05d}.json is corrupt; the trial is run again" in capsys.readouterr().err
    assert [row["log_loss"] for row in trials(run)] == losses

    # The same size, other bytes: nothing checks the file before it is used.
    models = sorted(search.rglob("fold-*.model"))
    good = [path.read_bytes() for path in models]
    models[0].write_bytes(good[0][:-7] + b"damaged")
    for trained in ("models", "predictions"):  # by tests before this one
        shutil.rmtree(tmp_path / "run" / trained, ignore_errors=True)
    train_boosters(run)
    assert "fold-0.model is corrupt; its fold is trained again" in capsys.readouterr().err
    assert [run.folder.read_bytes(f"models/small/fold-{n}/model.ubj") for n in range(3)] == good

    # Of fewer trials another one may be the best, whose models are gone.
    for count in (3, 2, 1):
        fewer = run_with(tmp_path, f"data.train={folder}/votes.csv", f"tune.0.trials={count}")
        tune(fewer)
        assert [row["log_loss"] for row in trials(fewer)] == losses[:count]
        train_boosters(fewer)


def test_a_trial_that_was_stopped_is_not_the_best():
    """At its last round its loss may have been lower than that of trials that continued and whose loss rose again."""

    def result(number, loss, stopped):
        return TrialResult(number, {}, loss, [loss], 100, stopped, 1.0, 1.0)

    results = [result(0, 1.03, True), result(1, 1.04, False), result(2, 1.05, False)]
    assert best_trial(results).number == 1
    assert best_trial(results[:1]).number == 0


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("tune.0.booster=smal", "tune names an unknown booster 'smal'; boosters: small"),
        ("tune.0.folds=4", "tune.folds is at most data.folds, 3"),
        ("tune.0.space={eta: {low: 2, high: 1}}", "low must be below high"),
        ("boosters.small.features=[lenght]", "did you mean 'length'"),
        ("boosters.small.engine=two_part", "write 'linear', its new name"),
        ("boosters.small.engine=lightgmb", "did you mean 'lightgbm'"),
        ("boosters.small.params={max_depht: 3}", "did you mean 'max_depth'"),
        ("boosters.small.params={reg_lambda: 3} tune.0.space=default", "are one parameter"),
        ("tune.0.space=ours", "write 'default', its new name"),
        ("tune.0.space=publishd", "known names: default, published"),
        ("tune.0.space={max_depht: {low: 1, high: 2}}", "did you mean 'max_depth'"),
        ("tune.0.space={n_jobs: {low: 1, high: 2}}", "Tiebreak sets this parameter"),
        ("boosters.small.engine=lightgbm tune.0.space={max_bin: {low: 7, high: 63, integer: true}}", "one binned"),
    ],
)
def test_impossible_searches_are_refused_before_any_work(tmp_path, override, says):
    with pytest.raises(InputError, match=says):
        run_with(tmp_path, *re.split(r" (?=tune\.)", override))


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.folds=4", "tune.0.folds=4"],
        ["boosters.small.params={max_depth: 2}"],
        ["boosters.small.swap=none"],
        ["tune.0.folds=2"],
    ],
)
def test_no_models_are_used_from_a_search_over_other_folds_or_settings(searched, overrides):
    """The names of a trial's models contain a fingerprint of all that they depend on."""
    folder, run, _ = searched
    inputs = {"records": "r", "features": "f"}

    def names(run):
        (booster,), (search,) = run.settings.boosters, run.settings.tune
        stage = search_stage(run, booster, search, inputs)
        return _model_names(_trial_fingerprint(stage), {"eta": 0.1}, 3)

    assert names(run) == names(run_with(folder, "tune.0.trials=9"))
    assert not set(names(run)) & set(names(run_with(folder, *overrides)))


def test_a_search_depends_on_the_sources_used(searched):
    _, run, _ = searched
    (booster,), (search,) = run.settings.boosters, run.settings.tune
    stages = [
        search_stage(run, booster, search, {"records": "r", "features": "f", **more}) for more in ({}, {"sources": "s"})
    ]
    assert stages[0].fingerprint != stages[1].fingerprint


def test_an_average_of_folds_depends_on_no_trial(searched):
    folder, run, _ = searched
    other = run_with(folder, "boosters.small.fold_weights=inverse_loss")
    fingerprints = {search_stage(r, r.settings.boosters[0], r.settings.tune[0], {}).fingerprint for r in (run, other)}
    assert len(fingerprints) == 1
