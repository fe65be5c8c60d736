from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from core.errors import InputError
from featurize.blocks import sparse_from_lists, sparse_to_lists
from featurize.ngrams import counting, term_counts, vectorize
from featurize.text import DistinctTexts, Text
from tests.helpers.tables import TEXT, real_records

TEXTS = [
    f"{a} {b} the cat's {c} sat, {a}-{b}! {'été ' * (n % 3)}"
    for n, (a, b, c) in enumerate(zip("abcdefgh" * 12, ["red", "blue", "tall"] * 32, ["mat", "hat"] * 48, strict=True))
]


def fit(shards: list[list[str]], vectorizer: vectorize.Vectorizer) -> tuple[vectorize.NgramVocabulary, int]:
    """The passes over shards as the job makes them, and the number of terms that had to be counted again."""
    counters = [Counter(shard) for shard in shards]
    weighted = [([Text([text]) for text in shard], np.array(list(shard.values()))) for shard in counters]
    reports = [vectorize.report_terms(*shard, vectorizer) for shard in weighted]
    # Merged in two steps, as many shards are.
    counts = term_counts.merge_counts(term_counts.merge_counts(*reports[:2]), *reports[2:])
    texts = sum(map(len, shards))
    counts = counts.take(counts.candidates(texts, vectorizer.min_df, vectorizer.max_features))
    again = counts.take(counts.uncertain()).terms
    if again:
        matcher = vectorize.build_matcher(again, vectorizer)
        exact = [vectorize.count_exactly(*shard, matcher, vectorizer.analyzer) for shard in weighted]
        counts = term_counts.replace_uncertain_counts(counts, np.sum(exact, axis=0))
    return vectorize.choose_vocabulary(counts, texts, vectorizer), len(again)


def assert_equals_scikit_learn(texts: list[str], shards: list[list[str]], vectorizer: vectorize.Vectorizer):
    kind = CountVectorizer if vectorizer.weighting == "count" else TfidfVectorizer
    reference = kind(
        analyzer=vectorizer.analyzer,
        ngram_range=vectorizer.ngram_range,
        min_df=vectorizer.min_df,
        max_features=vectorizer.max_features,
    )
    expected = reference.fit_transform(texts).toarray()
    vocabulary, _ = fit(shards, vectorizer)
    assert vocabulary.terms == reference.get_feature_names_out().tolist()
    weighed = vectorize.apply_weighting(
        vectorize.count_texts([Text([text]) for text in texts], vocabulary, vectorizer), vocabulary, vectorizer
    )
    assert (
        np.abs(
            sparse_from_lists(
                sparse_to_lists(weighed.offsets, weighed.columns, weighed.values), len(vocabulary.terms)
            ).toarray()
            - expected
        ).max()
        < 1e-6
    )


@pytest.mark.parametrize("weighting", ["count", "tfidf"])
@pytest.mark.parametrize(
    ("analyzer", "span"),
    [("word", (1, 3)), ("word", (2, 2)), ("char", (1, 3)), ("char", (3, 5)), ("char_wb", (2, 4)), ("char_wb", (5, 6))],
)
def test_sharded_fit_and_transform_equal_scikit_learn(weighting, analyzer, span):
    vectorizer = vectorize.Vectorizer(analyzer, span, weighting, min_df=0.03, max_features=40)
    assert_equals_scikit_learn(TEXTS, [TEXTS[at : at + 17] for at in range(0, len(TEXTS), 17)], vectorizer)


@pytest.mark.parametrize("weighting", ["count", "tfidf"])
@pytest.mark.parametrize(("analyzer", "span"), [("word", (1, 3)), ("char", (1, 3)), ("char_wb", (2, 4))])
def test_equality_with_scikit_learn_on_real_records(weighting, analyzer, span):
    """The published recipe's settings, on shards as uneven as files can make them."""
    distinct = DistinctTexts.of(real_records(300))
    texts = [distinct.texts[n].full for part in ("response_a", "response_b") for n in distinct.index[part]]
    vectorizer = vectorize.Vectorizer(analyzer, span, weighting, min_df=0.002, max_features=1000)
    assert_equals_scikit_learn(texts, [texts[:13], texts[13:250], texts[250:]], vectorizer)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(TEXT, min_size=1, max_size=12),
    st.sampled_from([("word", (1, 2)), ("char", (1, 3)), ("char", (2, 4)), ("char_wb", (1, 3)), ("char_wb", (4, 5))]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(1, 12),
)
def test_any_texts_are_counted_as_scikit_learn_counts_them(texts, kind, min_df, cut):
    vectorizer = vectorize.Vectorizer(kind[0], kind[1], "tfidf", min_df=min_df, max_features=30)
    shards = [shard for shard in (texts[:cut], texts[cut:]) if shard]
    try:
        CountVectorizer(analyzer=kind[0], ngram_range=kind[1], min_df=min_df, max_features=30).fit(texts)
    except ValueError:  # no term is left
        with pytest.raises(InputError):
            fit(shards, vectorizer)
        return
    assert_equals_scikit_learn(texts, shards, vectorizer)


def test_most_terms_are_counted_once_and_the_others_again():
    """Frequent terms are reported by every shard; some of those near min_df are not."""
    distinct = DistinctTexts.of(real_records(300))
    texts = [distinct.texts[n].full for part in ("response_a", "response_b") for n in distinct.index[part]]
    shards = [texts[at : at + 60] for at in range(0, len(texts), 60)]
    _, again = fit(shards, vectorize.Vectorizer("char", (1, 3), "count", min_df=0.05, max_features=50))
    assert again == 0
    _, again = fit(shards, vectorize.Vectorizer("word", (1, 3), "count", min_df=0.05, max_features=10_000))
    assert again > 0


def test_a_small_square_table_and_binary_search_find_the_same(monkeypatch):
    vectorizer = vectorize.Vectorizer("char", (1, 3), "count", min_df=0.02, max_features=500)
    vocabulary, _ = fit([TEXTS], vectorizer)
    by_table = vectorize.count_texts([Text([text]) for text in TEXTS], vocabulary, vectorizer)
    monkeypatch.setattr(counting, "_TABLE_CELLS", 0)
    by_search = vectorize.count_texts([Text([text]) for text in TEXTS], vocabulary, vectorizer)
    for left, right in zip(vars(by_table).values(), vars(by_search).values(), strict=True):
        assert (left == right).all()


def test_texts_without_terms_count_as_texts_and_give_empty_rows():
    vectorizer = vectorize.Vectorizer("word", (1, 1), "tfidf", min_df=0.5, max_features=5)
    vocabulary, _ = fit([["", "!"], ["yes no", "yes"]], vectorizer)
    assert vocabulary.terms == ["yes"]
    weighed = vectorize.apply_weighting(
        vectorize.count_texts([Text([""]), Text(["yes"])], vocabulary, vectorizer), vocabulary, vectorizer
    )
    assert sparse_from_lists(
        sparse_to_lists(weighed.offsets, weighed.columns, weighed.values), 1
    ).toarray().ravel().tolist() == [0, 1]


def test_a_vocabulary_that_would_be_empty_says_so():
    with pytest.raises(InputError, match="lower min_df"):
        fit([["one", "two"]], vectorize.Vectorizer("word", (1, 1), "count", min_df=1.0, max_features=5))
