"""Other sources of votes: used where they help, kept away from folds with their prompts, never scored."""

import dataclasses
import json

import numpy as np
import pytest

from core.errors import InputError
from core.run import Run
from core.settings.loader import load_settings
from featurize.store import FeatureStore
from ray_jobs.featurize import featurize
from ray_jobs.ingest import ingest
from ray_jobs.train_boosters import train_boosters
from tests.helpers.votes import vote, write_votes
from train.boosters.load import load_data
from train.boosters.sources import read_used_sources, study_sources
from votes.records import open_records

CONFIG = """
data: {folds: 5, shard_rows: 60}
featurize: {families: [length]}
boosters: [{name: small, engine: lightgbm, rounds: 20, params: {min_data_in_leaf: 5}}]
"""
NOISE = np.random.default_rng(3)


def flipped(row):
    """The vote for the other answer."""
    a, b = row["winner_model_a"], row["winner_model_b"]
    return row | {"winner_model_a": b, "winner_model_b": a}


def noisy(row):
    """A quarter of the votes go to the wrong answer, so that more records can help."""
    return flipped(row) if NOISE.random() < 0.25 else row


@pytest.fixture(scope="module")
def trained(tmp_path_factory, ray_cluster):
    folder = tmp_path_factory.mktemp("sources")
    write_votes(folder / "own.csv", [noisy(vote(n)) for n in range(100, 250)])
    # The first 30 have prompts of the primary source, the others their own. All numbers have three digits, else the
    # length of a prompt would tell the sources apart.
    write_votes(folder / "good.csv", [noisy(vote(n)) for n in [*range(100, 130), *range(300, 600)]])
    write_votes(folder / "bad.csv", [flipped(vote(n)) for n in range(600, 900)])
    sources = ", ".join(f"{{name: {name}, path: {folder}/{name}.csv}}" for name in ("own", "good", "bad"))
    run = Run(load_settings(CONFIG, "test.yaml", [f"run={folder}/run", f"data.train=[{sources}]"]))
    ingest(run)
    featurize(run)
    return run, train_boosters(run)


def test_records_of_other_sources_get_the_fold_of_their_prompt(trained):
    run, _ = trained
    records = open_records(run)
    own = records.read("train", ["group", "fold"]).to_pandas().drop_duplicates().set_index("group")["fold"]
    other = records.read("source-good", ["group", "fold"]).to_pandas()
    known = other["group"].isin(own.index)
    assert known.sum() == 30
    assert (other["fold"][known].to_numpy() == own.loc[other["group"][known]].to_numpy()).all()
    assert (other["fold"][~known] == -1).all()
    assert records.manifest["metrics"]["source-good"]["with_a_prompt_of_train"] == 30


def test_a_fold_trains_on_no_record_with_its_prompts_and_holds_out_only_primary_ones(trained):
    run, _ = trained
    records = open_records(run)
    data = load_data(FeatureStore.open(run, records), records, None, {"good": 0.5, "bad": 1.0})
    assert data.weights is not None
    assert len(data.labels) == 150 + 330 + 300
    groups = np.concatenate(
        [records.read(split, ["group"])["group"].to_numpy() for split in ("train", "source-good", "source-bad")]
    )
    for fold in range(5):
        held_out, training = data.held_out(fold), data.training_rows(fold)
        assert not set(groups[held_out]) & set(groups[training])
        assert held_out.max() < 150
        assert (data.sources[training] > 0).sum() > 500
    assert set(data.weights[150:480]) == {0.5}


def test_a_source_that_hurts_is_named_and_not_used(trained):
    run, results = trained
    study = run.folder.read_json("sources/study.json")
    assert study["sources"]["bad"]["ci95"][1] < 0
    assert study["sources"]["bad"]["used_in_folds"] == 0
    assert study["sources"]["good"]["gain"] > study["sources"]["bad"]["gain"] + 0.05
    notes = next(result.notes for result in results if result.stage == "sources")
    assert any(note.startswith("bad hurts") for note in notes)


def test_only_primary_records_are_predicted(trained):
    run, _ = trained
    predicted = (run.folder / "predictions/small").read_table("train.parquet")
    assert predicted["id"].to_pylist() == [str(n) for n in range(100, 250)]
    manifest = json.loads(run.folder.read_bytes("models/small/manifest.json"))
    assert manifest["settings"]["sources"] == {"good": 1.0, "bad": 1.0}


def test_a_second_run_does_nothing(trained):
    run, _ = trained
    assert all(result.cached for result in train_boosters(run))


@pytest.mark.slow
def test_the_choice_goes_with_the_names_not_the_order(trained):
    run, _ = trained
    data = run.settings.data
    assert data.train is not None
    own, good, bad = data.train
    turned = dataclasses.replace(
        run, settings=run.settings.model_copy(update={"data": data.model_copy(update={"train": [own, bad, good]})})
    )
    used, other = read_used_sources(run), read_used_sources(turned)
    assert used is not None
    assert other is not None
    assert (used[:, ::-1] == other).all()
    everything = run.settings.model_copy(update={"data": data.model_copy(update={"sources": "all"})})
    assert read_used_sources(dataclasses.replace(run, settings=everything)) is None
    assert [result.cached for result in train_boosters(dataclasses.replace(run, settings=everything))] == [True, False]


def test_another_source_changes_nothing_for_what_does_not_train_on_it(trained):
    """Language models score the primary records and the test's; a source more is no reason to do so again."""
    run, _ = trained
    records = open_records(run)
    alone = {name: digest for name, digest in records.manifest["inputs"].items() if not name.startswith("source-bad")}
    fewer = dataclasses.replace(records, manifest=records.manifest | {"inputs": alone})
    assert fewer.fingerprint == records.fingerprint


def test_sources_without_columns_to_judge_them_by_are_refused_or_all_used(trained, capsys):
    run, _ = trained
    bare = run.settings.featurize.model_copy(update={"families": []})
    features = str(run.require("features", "featurize")["fingerprint"])
    for sources in ("select", "all"):
        data = run.settings.data.model_copy(update={"sources": sources})
        other = dataclasses.replace(run, settings=run.settings.model_copy(update={"featurize": bare, "data": data}))
        if sources == "select":
            with pytest.raises(InputError, match="needs hand-made features"):
                study_sources(other, open_records(run), features)
        else:
            assert study_sources(other, open_records(run), features) is None
            assert "the gain of other sources is unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("[]", "at least one"),
        ("[{name: a, path: x}, {name: a, path: y}]", "two sources share the name 'a'"),
        ("[{name: a, path: x, weight: 2}]", "primary"),
        ("[{name: a, path: x}, {name: b, path: y, weight: -1}]", "weight"),
        ("5", "data.train"),
    ],
)
def test_impossible_sources_are_refused(tmp_path, train, says):
    with pytest.raises(InputError, match=says):
        load_settings(CONFIG, "test.yaml", [f"run={tmp_path}", f"data.train={train}"])
