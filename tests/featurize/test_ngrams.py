import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from featurize import ngrams
from preference.errors import InputError

TEXTS = [
    f"{a} {b} the cat's {c} sat, {a}-{b}! {'été ' * (n % 3)}"
    for n, (a, b, c) in enumerate(zip("abcdefgh" * 12, ["red", "blue", "tall"] * 32, ["mat", "hat"] * 48, strict=True))
]


@pytest.mark.parametrize("weighting", ["count", "tfidf"])
@pytest.mark.parametrize(("analyzer", "span"), [("word", (1, 3)), ("char", (1, 3)), ("char_wb", (2, 4))])
def test_sharded_fit_and_transform_equal_scikit_learn(weighting, analyzer, span):
    settings = ngrams.NgramSettings(analyzer, span, weighting, min_df=0.03, max_features=40)
    kind = CountVectorizer if weighting == "count" else TfidfVectorizer
    theirs = kind(analyzer=analyzer, ngram_range=span, min_df=0.03, max_features=40)
    expected = theirs.fit_transform(TEXTS).toarray()

    counts = [ngrams.count_terms(TEXTS[at : at + 17], settings) for at in range(0, len(TEXTS), 17)]
    merged = ngrams.merge_counts(ngrams.merge_counts(*counts[:2]), *counts[2:])
    vocabulary = ngrams.choose_vocabulary(merged, len(TEXTS), settings)
    made = ngrams.to_dense(ngrams.transform(TEXTS, vocabulary, settings), len(vocabulary.terms))

    assert vocabulary.terms == theirs.get_feature_names_out().tolist()
    assert np.abs(made - expected).max() < 1e-6


def test_texts_without_terms_count_as_texts_and_give_empty_rows():
    settings = ngrams.NgramSettings("word", (1, 1), "tfidf", min_df=0.5, max_features=5)
    merged = ngrams.merge_counts(
        ngrams.count_terms(["", "!"], settings), ngrams.count_terms(["yes no", "yes"], settings)
    )
    vocabulary = ngrams.choose_vocabulary(merged, 4, settings)
    assert vocabulary.terms == ["yes"]
    assert ngrams.to_dense(ngrams.transform(["", "yes"], vocabulary, settings), 1).ravel().tolist() == [0, 1]


def test_a_vocabulary_that_would_be_empty_says_so():
    settings = ngrams.NgramSettings("word", (1, 1), "count", min_df=1.0, max_features=5)
    with pytest.raises(InputError, match="lower min_df"):
        ngrams.choose_vocabulary(ngrams.count_terms(["one", "two"], settings), 2, settings)
