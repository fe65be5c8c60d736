"""The featurize job: what it leaves, what it does again, and what it refuses."""

import importlib.metadata
import json
import os

import pytest

from core.errors import InputError
from core.run import Run
from core.settings.loader import load_settings
from featurize.families.ngrams import NgramFamily
from featurize.make import featurize_new_records
from featurize.store import FeatureStore
from ray_jobs.featurize import featurize
from ray_jobs.ingest import ingest
from tests.helpers.commands import run_job
from tests.helpers.votes import COLUMNS, vote, write_votes
from train.boosters.load import load_data
from votes.records import Records, open_records

CONFIG = """
run: {run}
data: {{train: {train}, test: {test}, folds: 3, shard_rows: 20}}
featurize:
  families:
    - all
    - {{family: ngrams, name: words, ngram_range: [1, 2], min_df: 0.02, max_features: 50, view: difference}}
    - {{family: ngrams, name: counts, ngram_range: [1, 2], weighting: count, min_df: 0.02, max_features: 50}}
    - {{family: ngrams, name: chars, part: prompt, analyzer: char, ngram_range: [1, 3], min_df: 0.02, max_features: 50}}
    - {{family: word2vec, dimensions: 6, epochs: 2}}
    - {{family: embeddings, max_tokens: 16, components: 4, num_workers: 1}}
"""
WORDS = ["river", "stone", "cloud", "paper", "green", "quick", "seven", "music"]


def votes(count, first=0):
    return [
        vote(n, response_a=json.dumps([" ".join(WORDS[(n * k) % 8] for k in range(3 + n % 5))]))
        for n in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, ray_cluster):
    """A configuration whose features are made on two CPUs, with one encoder."""
    folder = tmp_path_factory.mktemp("featurize")
    train = write_votes(folder / "train.csv", votes(90))
    test = write_votes(folder / "test.csv", votes(30, first=1000), [COLUMNS[0], *COLUMNS[3:6]])
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(run=folder / "run", train=train, test=test))
    run = Run(load_settings(config.read_text(), str(config)))
    ingest(run)
    (result,) = featurize(run)
    return config, run, result.manifest


def other(finished, *overrides):
    """The same run with other settings."""
    config, _, _ = finished
    return Run(load_settings(config.read_text(), str(config), overrides))


def files(run):
    folder = run.folder / "features"
    return {name: folder.read_bytes(name) for name in folder.files() if name.endswith((".parquet", ".json"))}


def test_every_column_is_in_the_catalog_with_its_unit(finished):
    _, run, manifest = finished
    layout = FeatureStore.open(run, open_records(run)).layout
    counted = sum(entry.get("columns", 1) for entry in manifest["catalogue"])
    assert counted == len(layout.columns()) == manifest["metrics"]["columns"]
    assert all(entry["unit"] and entry["description"] for entry in manifest["catalogue"])
    families = {entry["family"] for entry in manifest["catalogue"]}
    assert families >= {"length", "vocabulary", "entities", "style", "tone", "language", "overlap", "similarity"}
    assert families >= {"words", "counts", "chars", "word2vec", "embeddings"}


def test_matrices_of_both_splits_have_every_record_and_column(finished):
    _, run, _ = finished
    records = open_records(run)
    store = FeatureStore.open(run, open_records(run))
    data = load_data(store, records)
    assert data.test_features is not None
    assert (len(data.features), len(data.test_features)) == (90, 30)
    assert data.features.width == data.test_features.width == len(data.names) == len(store.layout.columns())
    # What is kept sparse is what is kept dense.
    arrays = load_data(store, records, sparse_below=0.0)
    assert data.features.sparse is not None
    assert arrays.features.sparse is None
    positions = [data.names.index(name) for name in arrays.names]
    assert (data.features.joined().toarray()[:, positions] == arrays.features.dense).all()
    swapped = data.swapped(data.features).joined().toarray()[:, positions]
    assert (swapped == arrays.swapped(arrays.features).dense).all()


def test_a_model_may_see_some_families_alone(finished):
    _, run, _ = finished
    records = open_records(run)
    store = FeatureStore.open(run, records)
    data = load_data(store, records, ["style", "words"])
    assert set(data.families) == {"style", "words"}
    everything = load_data(store, records)
    positions = [everything.names.index(name) for name in data.names]
    assert (everything.features.joined()[:, positions] != data.features.joined()).nnz == 0


def test_a_second_run_does_nothing(finished):
    (result,) = featurize(finished[1])
    assert result.cached


@pytest.mark.slow
def test_further_test_records_get_the_features_that_the_run_gives_them(finished, tmp_path):
    _, run, _ = finished
    records = open_records(run)
    test_alone = Records(records.folder, {**records.manifest, "rows": {"test": 30}})
    more = other(finished, f"run={tmp_path}/more")
    result = featurize_new_records(more, test_alone, run.folder / "features")
    expected = {name: data for name, data in files(run).items() if "/test/" in name}
    assert len(expected) == 2 * len(FeatureStore.open(run, records).outputs)
    assert {name: data for name, data in files(more).items() if name != "manifest.json"} == expected
    assert not result.cached
    assert featurize_new_records(more, test_alone, run.folder / "features").cached


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["ray.cpus=1", "featurize.families.embeddings.num_workers=2"])
def test_the_number_of_workers_does_not_change_a_byte(finished, tmp_path, workers):
    config, run, _ = finished
    for job in ("ingest", "featurize"):
        done = run_job(job, tmp_path / "run", workers, config=str(config))
        assert done.returncode == 0, done.stderr
    alone = Run(load_settings(config.read_text(), str(config), [f"run={tmp_path / 'run'}"]))
    expected, files_alone = files(run), files(alone)
    assert set(expected) == set(files_alone)
    assert len(expected) > 50
    different = [
        name for name in expected if not name.endswith("manifest.json") and expected[name] != files_alone[name]
    ]
    assert different == []


def test_only_the_block_that_changed_is_made_again(finished):
    _, run, _ = finished
    folder = run.folder / "features"
    before = files(run)
    featurize(other(finished, "featurize.families.words.max_features=20", "featurize.families.counts.view=difference"))
    after = files(run)
    changed = {name.split("/")[1] for name in before if name.startswith("ngrams/") and before[name] != after[name]}
    assert changed == {"words"}
    assert all(before[name] == after[name] for name in before if not name.startswith(("ngrams/", "manifest")))
    featurize(finished[1])  # as it was, for the other tests
    assert files(run).keys() == before.keys()
    assert folder.exists("manifest.json")


def test_other_test_records_leave_all_that_was_fitted_and_made_of_training_records(finished, tmp_path):
    _, run, _ = finished
    before = files(run)
    test = write_votes(tmp_path / "test.csv", votes(5, first=5000), [COLUMNS[0], *COLUMNS[3:6]])
    changed = other(finished, f"data.test={test}")
    stamps = {name: os.stat(f"{run.folder}/features/{name}").st_mtime_ns for name in before}
    try:
        ingest(changed)
        featurize(changed)
        for name, content in before.items():
            if "/test/" not in name and name != "manifest.json":
                assert run.folder.read_bytes(f"features/{name}") == content
                assert os.stat(f"{run.folder}/features/{name}").st_mtime_ns == stamps[name]
    finally:
        ingest(run)
        featurize(run)


def test_more_components_need_no_text_to_be_encoded_again(finished):
    _, run, _ = finished
    before = files(run)
    featurize(other(finished, "featurize.families.embeddings.components=3"))
    after = files(run)
    same = {name for name in before if before[name] == after.get(name)}
    assert {name for name in before if name.startswith("embeddings/vectors/")} <= same
    assert "embeddings/train/part-00000.parquet" not in same
    featurize(run)


def test_features_of_another_version_or_other_settings_are_refused_by_name(finished, monkeypatch):
    _, run, _ = finished
    records = open_records(run)
    with pytest.raises(InputError, match=r"other settings: featurize.word2vec.dimensions \(6 then, 7 now\)"):
        FeatureStore.open(other(finished, "featurize.families.word2vec.dimensions=7"), records)
    version = importlib.metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: "99" if name == "gensim" else version(name))
        with pytest.raises(InputError, match=r"another version of this code, a library, a model or a plugin: word2vec"):
            FeatureStore.open(run, records)
    with pytest.raises(InputError, match=r"other settings: featurize.chars, order"):
        FeatureStore.open(other(finished, "featurize.families.chars=null"), records)
    monkeypatch.setattr(NgramFamily, "version", 99)
    with pytest.raises(InputError, match=r"another version of this code, .*: ngrams"):
        FeatureStore.open(run, records)


def test_a_file_made_otherwise_and_a_vocabulary_fitted_otherwise_are_refused(finished):
    _, run, _ = finished
    folder = run.folder / "features"
    store = FeatureStore.open(run, open_records(run))
    kept = folder.read_bytes("handmade/train/part-00000.parquet")
    vocabulary = folder.read_json("ngrams/words/vocabulary.json")
    try:
        folder.write_table(
            "handmade/train/part-00000.parquet", folder.read_table("handmade/train/part-00000.parquet"), "x"
        )
        with pytest.raises(InputError, match=r"handmade/train/part-00000.parquet: made with other settings"):
            load_data(store, open_records(run))
    finally:
        folder.write_bytes("handmade/train/part-00000.parquet", kept)
    try:
        folder.write_json(
            "ngrams/words/vocabulary.json", {**vocabulary, "fingerprint": "x" * len(vocabulary["fingerprint"])}
        )
        with pytest.raises(InputError, match=r"ngrams/words/vocabulary.json: fitted with other settings"):
            FeatureStore.open(run, open_records(run))
    finally:
        folder.write_json("ngrams/words/vocabulary.json", vocabulary)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            "featurize.families=[{family: named_entities, model: en_core_web_xx}]",
            "python -m spacy download en_core_web_xx",
        ),
        ("featurize.families=[{family: named_entities, model: ./nowhere}]", "python -m spacy download"),
        ("featurize.families.embeddings.model=./nowhere", "no such folder"),
    ],
)
def test_a_model_that_is_not_there_is_refused_before_any_work(finished, override, reason):
    before = files(finished[1])
    with pytest.raises(InputError, match=reason):
        featurize(other(finished, override))
    assert files(finished[1]) == before
