"""One new file is a feature family: its columns go through featurize and the store to the matrix."""

import sys

import numpy as np
import pytest

from core.errors import InputError
from core.registry import FAMILIES, load_plugins, read_plugin
from core.run import Run
from core.settings.loader import load_settings
from core.stage import SCHEMA_VERSION
from featurize import make
from featurize.store import FeatureStore
from tests.helpers.tables import records
from votes.records import open_records

PLUGIN = '''
from pydantic import Field

from core.registry import FAMILIES
from core.settings.features import FamilyEntry
from featurize.blocks import Feature
from featurize.family import TextFamily


class KeywordSettings(FamilyEntry):
    """Words that are counted."""

    words: list[str] = Field(min_length=1, description="The words to count, in lower case.")


@FAMILIES.register
class KeywordFamily(TextFamily):
    """Counts some words."""

    name = "keywords"
    summary = "how often a text uses some words"
    version = 1
    settings = KeywordSettings
    text_features = (Feature("count", "words", "words among those to count"),)

    def describe_all(self, texts, entry):
        return [[float(sum(text.word_counts[word] for word in entry.words))] for text in texts]
'''
CONFIG = """
run: {run}
data: {{folds: 2}}
featurize: {{families: [length, {{family: keywords, words: [sky, stone]}}]}}
boosters: [{{name: small, engine: lightgbm, features: [keywords]}}]
"""


@pytest.fixture
def plugin(tmp_path):
    """A function that loads the plugin, perhaps changed. Afterwards the registry is as it was."""
    FAMILIES.names()
    members, path = dict(FAMILIES._members), tmp_path / "my-keywords.py"

    def load(source):
        path.write_text(source)
        load_plugins(read_plugin(str(path)))

    load(PLUGIN)
    yield load
    FAMILIES._members.clear()
    FAMILIES._members.update(members)
    del sys.modules["tiebreak_plugin_my_keywords"]


@pytest.fixture
def run(plugin, tmp_path, monkeypatch):
    """A run with ingested records, whose shards are worked on in this process."""
    monkeypatch.setattr(make, "connect", lambda run: None)
    monkeypatch.setattr(make, "map_shards", lambda items, work: [row for item in items for row in work(item)])
    run = Run(load_settings(CONFIG.format(run=tmp_path / "run"), "config.yaml"))
    shards = {
        "train/part-00000.parquet": records((["sky?"], ["stone sky"], ["red"]), (["red"], ["sky"], [None])),
        "train/part-00001.parquet": records((["a b"], ["stone"], ["sky sky stone"])),
    }
    folder = run.folder / "records"
    for name, table in shards.items():
        folder.write_table(name, table)
    folder.write_json(
        "manifest.json",
        {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": "r",
            "settings": {"seed": 1, "folds": 2, "shard_rows": 2048, "text_format": "auto"},
            "inputs": {"train/votes.csv": "digest"},
            "rows": {"train": 3},
            "shards": {name: len(table) for name, table in shards.items()},
        },
    )
    return run


def test_a_family_from_a_file_reaches_the_matrix_and_the_catalog(run):
    (result,) = make.build_features(run)
    store = FeatureStore.open(run, open_records(run))
    shards = [store.tables("train", f"part-0000{n}.parquet", store.layout.blocks) for n in (0, 1)]
    matrix = np.concatenate([store.layout.of(["keywords"]).dense(shard) for shard in shards])
    # prompt, A, B, A - B, (A - B) / (A + B + 1)
    assert np.allclose(matrix, [[1, 2, 0, 2, 2 / 3], [0, 1, 0, 1, 1 / 2], [0, 1, 3, -2, -2 / 5]])
    assert store.layout.families() == ["length", "keywords"]
    listed = [entry for entry in result.manifest["catalogue"] if entry["family"] == "keywords"]
    assert [entry["name"] for entry in listed][:2] == ["keywords_count_prompt", "keywords_count_a"]
    assert result.manifest["schema"]["keywords_count_a"] == "float32"


def test_a_changed_plugin_and_changed_settings_of_it_redo_its_work(run, plugin):
    make.build_features(run)
    assert make.build_features(run)[0].cached
    plugin(PLUGIN.replace("float(sum(", "float(2 * sum("))
    with pytest.raises(InputError, match="another version of this code, a library, a model or a plugin: handmade"):
        FeatureStore.open(run, open_records(run))
    assert not make.build_features(run)[0].cached
    store = FeatureStore.open(run, open_records(run))
    shard = store.tables("train", "part-00000.parquet", store.layout.blocks)
    assert store.layout.of(["keywords"]).dense(shard)[:, 1].tolist() == [4, 2]


def test_without_its_plugin_an_entry_is_refused_with_the_way_to_give_it(plugin):
    text = CONFIG.format(run="somewhere")
    load_settings(text, "config.yaml")
    del FAMILIES._members["keywords"]
    with pytest.raises(InputError, match=r"no feature family 'keywords'.*--plugin FILE"):
        load_settings(text, "config.yaml")


def test_the_settings_of_a_plugin_are_checked_and_survive_a_file(plugin):
    with pytest.raises(InputError, match=r"'featurize.families.keywords.word'.* did you mean 'words'"):
        load_settings(CONFIG.format(run="x").replace("words: [", "word: ["), "config.yaml")
    settings = load_settings(CONFIG.format(run="x"), "config.yaml")
    assert load_settings(settings.model_dump_json(), "settings.json") == settings
