"""What every feature family keeps, whatever it computes. A new member of the registry is tested by being there."""

import importlib.metadata
import re
from typing import Any

import numpy as np
import pytest

from core.registry import FAMILIES
from core.run import Run
from core.settings.features import FamilyEntry, Featurize
from core.settings.schema import Settings
from core.stage import SCHEMA_VERSION
from core.storage import Folder
from featurize import outputs
from featurize.blocks import swap_columns
from featurize.joined import JoinedFamily
from featurize.outputs import entry_family, plan_outputs
from tests.helpers.features import fit_entry, shard_file
from tests.helpers.swap import swap_records
from tests.helpers.tables import records
from votes.records import Records

TABLE = records(
    (["What is the capital of France?"], ["Sure! Paris, in France."], ["I cannot say. Ask Ada in London."]),
    (["red blue sky", "and then?"], ["red sky sky\n- one\n- two"], [None]),
    (["שלום 你好"], ["Paris is a city of red stone.", "Yes."], ["```x = 1```"]),
    (["red blue sky", "and then?"], ["I cannot say. Ask Ada in London."], ["red sky sky\n- one\n- two"]),
)
# Settings that a member needs, or that make it small. A member without required settings needs none here.
SMALL: dict[str, dict[str, Any]] = {
    "ngrams": {"name": "words", "min_df": 0.0},
    "word2vec": {"dimensions": 3, "epochs": 1},
    "embeddings": {"components": 3, "max_tokens": 16},
}


# As much of the manifest of records as `plan` reads.
RECORDS = Records(
    Folder("unused"), {"rows": {"train": 4, "test": 2}, "inputs": {}, "settings": {}, "schema_version": SCHEMA_VERSION}
)


@pytest.fixture(scope="module")
def spacy_model(tmp_path_factory):
    """A spaCy pipeline of rules: models themselves cannot be installed from PyPI."""
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ada"}])
    folder = tmp_path_factory.mktemp("spacy") / "rules"
    pipeline.to_disk(folder)
    return str(folder)


@pytest.fixture(params=FAMILIES.names())
def entry(request, spacy_model):
    small = {"model": spacy_model} if request.param == "named_entities" else SMALL.get(request.param, {})
    return Featurize.model_validate({"families": [{"family": request.param, **small}]}).families[0]


@pytest.fixture
def matrix_of(entry, tmp_path):
    """A function from records to the columns and the matrix of the entry."""
    if isinstance(entry_family(entry), JoinedFamily):
        pytest.skip("numbers are joined to records, not computed from texts: see test_joined")
    folder = Folder(str(tmp_path))
    output = fit_entry(entry, [TABLE[:2], TABLE[2:]], folder)

    def matrix(table):
        block = entry_family(entry).block(entry, output, folder)
        file = shard_file(entry, table, folder)
        assert set(block.schema()) <= set(file.column_names)
        return block, block.dense(file)

    return matrix


def test_columns_match_the_matrix(entry, matrix_of):
    block, matrix = matrix_of(TABLE)
    columns = block.columns()
    assert matrix.shape == (len(TABLE), len(columns))
    assert matrix.dtype in (np.float32, np.float64)
    assert np.isfinite(matrix).all()
    assert matrix.any(), "all columns are 0 for these texts"
    assert len({column.name for column in columns}) == len(columns)
    assert {column.family for column in columns} == {entry.entry_name}
    assert all(column.unit and column.description for column in columns)
    assert block.folder == entry_family(entry).folder(entry)


def test_the_catalog_has_every_column(matrix_of):
    block, _ = matrix_of(TABLE)
    entries = block.catalog()
    assert sum(listed.get("columns", 1) for listed in entries) == len(block.columns())
    assert all(listed["unit"] and listed["description"] for listed in entries)


def test_an_exchange_of_the_answers_is_an_exchange_of_the_columns(matrix_of):
    block, matrix = matrix_of(TABLE)
    permutation, signs = swap_columns(block.columns())
    assert (permutation[permutation] == np.arange(len(permutation))).all()
    assert (signs * signs[permutation] == 1).all()
    assert (matrix[:, permutation] * signs == matrix_of(swap_records(TABLE))[1]).all()


def test_the_same_texts_give_the_same_bytes_in_other_company(matrix_of):
    """A shard's file must not depend on the order of its records."""
    order = [2, 0, 3, 1]
    assert (matrix_of(TABLE.take(order))[1] == matrix_of(TABLE)[1][order]).all()


@pytest.fixture(autouse=True)
def joined(monkeypatch):
    """Digests of what is joined to records, without the stages that join it."""
    digests = {"train": "1", "test": "2"}
    monkeypatch.setattr(JoinedFamily, "joined_digests", lambda family, run: digests)


def fingerprints(entry, seed=1):
    planned = plan_outputs(Run(Settings(run="unused", seed=seed, featurize=Featurize(families=[entry]))), RECORDS)
    return {output.folder: (output.fingerprint, *output.by_split.values()) for output in planned}


def test_the_fingerprint_follows_version_plugin_and_libraries(entry, monkeypatch):
    family = entry_family(entry)
    before = fingerprints(entry)
    assert fingerprints(entry) == before

    def all_differ(after):
        return before.keys() == after.keys() and not any(set(before[name]) & set(after[name]) for name in before)

    with monkeypatch.context() as patch:
        patch.setattr(type(family), "version", family.version + 1)
        assert all_differ(fingerprints(entry))
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "plugin_digest", lambda member: "changed")
        assert all_differ(fingerprints(entry))
    version = importlib.metadata.version
    for library in family.libraries:
        with monkeypatch.context() as patch:
            patch.setattr(
                importlib.metadata, "version", lambda name, old=library: "0" if name == old else version(name)
            )
            assert all_differ(fingerprints(entry))


def test_settings_of_resources_and_of_columns_leave_files_as_they_are(entry):
    known = set(type(entry).model_fields)
    assert entry.resources | entry.columns_only <= known
    assert not set(entry.file_settings()) & (entry.resources | entry.columns_only)
    assert not set(entry.matrix_settings()) & entry.resources


def test_a_member_is_one_class_in_one_file_with_its_settings(entry):
    family = entry_family(entry)
    module = type(family).__module__
    assert module == f"featurize.families.{family.name}"
    assert re.fullmatch(r"[^\n]{20,120}", family.summary)
    assert issubclass(family.settings, FamilyEntry)
    assert family.settings is FamilyEntry or family.settings.__module__ == module
    undescribed = [name for name, field in family.settings.model_fields.items() if not field.description]
    assert undescribed == []


def test_an_entry_survives_a_settings_file(entry):
    featurize = Featurize(families=[entry])
    assert Featurize.model_validate_json(featurize.model_dump_json()) == featurize
    assert featurize.names == [entry.entry_name]
