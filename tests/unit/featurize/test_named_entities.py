"""With a spaCy pipeline of rules, made here: models themselves cannot be installed from PyPI."""

import numpy as np
import pytest

from core.errors import InputError
from featurize.blocks import swap_columns
from featurize.families.named_entities import NamedEntityFamily, NamedEntitySettings, spacy_identity
from featurize.text import DistinctTexts
from tests.helpers.swap import swap_records
from tests.helpers.tables import records


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import spacy

    pipeline = spacy.blank("en")
    rules = pipeline.add_pipe("entity_ruler")
    rules.add_patterns(
        [
            {"label": "PERSON", "pattern": "Ada Lovelace"},
            {"label": "GPE", "pattern": "London"},
            {"label": "LAW", "pattern": "Magna Carta"},
        ]
    )
    folder = tmp_path_factory.mktemp("spacy") / "rules"
    pipeline.to_disk(folder)
    return str(folder)


def test_entities_are_counted_by_kind_and_follow_a_swap(model):
    table = records((["Who?"], ["Ada Lovelace, London, Ada Lovelace, Magna Carta"], [None]))
    family, entry = NamedEntityFamily(), NamedEntitySettings(model=model)
    columns = family.columns(entry)
    matrix = family.matrix(DistinctTexts.of(table), entry)
    values = dict(zip([column.name for column in columns], matrix[0].tolist(), strict=True))
    assert values["named_entities_persons_a"] == 2
    assert values["named_entities_places_a"] == 1
    assert values["named_entities_others_a"] == 1
    assert values["named_entities_all_difference"] == 4
    assert values["named_entities_distinct_a"] == 3
    permutation, signs = swap_columns(columns)
    swapped = family.matrix(DistinctTexts.of(swap_records(table)), entry)
    assert np.array_equal(matrix[:, permutation] * signs, swapped)


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    with pytest.raises(InputError, match="python -m spacy download en_core_web_xx"):
        spacy_identity("en_core_web_xx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install spacy"):
        spacy_identity("en_core_web_sm")
