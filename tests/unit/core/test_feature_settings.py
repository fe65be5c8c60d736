"""The list of feature families in the settings."""

import pytest
import yaml

from core.errors import InputError
from core.settings.features import Featurize
from core.settings.loader import load_settings

ALL = ["length", "vocabulary", "entities", "style", "tone", "language", "opening", "overlap", "similarity"]


def featurize(text, *overrides):
    return load_settings(f"run: x\nfeaturize: {text}", "c.yaml", overrides).featurize


def test_all_and_the_default_are_the_hand_made_families_and_similarity_in_order():
    assert featurize("{}").names == featurize("{families: all}").names == featurize("{families: [all]}").names == ALL


def test_entries_keep_their_order_and_may_have_names_of_their_own():
    text = "{families: [style, {family: ngrams, name: b, part: prompt}, {family: ngrams, name: a}, length, word2vec]}"
    assert featurize(text).names == ["style", "b", "a", "length", "word2vec"]


def test_overrides_reach_entries_by_name_or_family_and_null_leaves_one_out():
    text = "{families: [all, {family: ngrams, name: w}, {family: embeddings, components: 4}]}"
    changed = featurize(text, "featurize.families.w.max_features=7", "featurize.families.embeddings.components=3")
    assert (changed.families[-2].max_features, changed.families[-1].components) == (7, 3)
    assert featurize(text, "featurize.families.embeddings=null").names == [*ALL, "w"]


@pytest.mark.parametrize(
    ("families", "key", "hint"),
    [
        ("[lenght]", "'featurize.families.lenght'", "did you mean 'length'"),
        ("[{family: ngrms, name: w}]", "'featurize.families.w'", "did you mean 'ngrams'"),
        (
            "[{family: ngrams, name: w, max_feature: 3}]",
            "'featurize.families.w.max_feature'",
            "did you mean 'max_features'",
        ),
        ("[{family: length, words: 3}]", "unknown setting 'featurize.families.length.words'", "Valid here: family"),
        (
            "[{family: embeddings, replicas: 2}]",
            "'featurize.families.embeddings.replicas'",
            "has a new name. Fix: write num_workers",
        ),
        ("[ngrams]", "'featurize.families.ngrams.name'", "missing"),
        (
            "[null, all, {family: ngrams, name: w, max_features: 0}]",
            "change featurize.families.w.max_features",
            "invalid",
        ),
        ("[{family: ngrams, name: ../up}]", "name", "pattern"),
        ("[{family: ngrams, name: length}]", "'featurize'", "has the name of a family"),
        ("[{family: ngrams, name: w}, {family: ngrams, name: w}]", "'featurize'", "share the name 'w'"),
        ("[{family: ngrams, name: w, ngram_range: [2, 1]}]", "'featurize.families.w'", "min must not exceed max"),
        ("[{family: ngrams, name: w, min_df: 2}]", "'featurize.families.w.min_df'", "less than or equal to 1"),
        ("[{name: w}]", "'featurize.families.w'", "{family: ngrams, name: words}"),
        ("[all, length]", "'featurize'", "share the name 'length'"),
        ("[]", "'featurize.families'", "at least 1 item"),
        ("5", "'featurize.families'", "valid list"),
    ],
)
def test_impossible_entries_name_the_reason(families, key, hint):
    with pytest.raises(InputError) as caught:
        featurize(f"{{families: {families}}}")
    assert key in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("key", ["ngrams", "word2vec", "embeddings", "spacy_model"])
def test_an_old_key_is_refused_and_what_to_write_instead_is_valid(key):
    with pytest.raises(InputError, match=f"featurize.{key}"):
        featurize("{}", f"featurize.{key}=null")
    entry = yaml.safe_load(Featurize.renamed[key].partition("`- ")[2].rstrip("`"))
    assert Featurize(families=[entry]).families[0].family == entry["family"]
