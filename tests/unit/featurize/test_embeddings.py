import numpy as np
import pyarrow as pa
import pytest

from core.errors import InputError
from featurize.components import Moments, principal_components
from featurize.families import embeddings
from featurize.text import DistinctTexts
from tests.helpers.swap import swap_records


def test_principal_components_from_moments_are_scikit_learns():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(5)
    vectors = (rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6)) + 2).astype(np.float32)
    moments = Moments.of(vectors[:100]) + Moments.of(vectors[100:])
    components = principal_components(moments, 3)
    reference = PCA(3, svd_solver="full").fit(vectors.astype(np.float64))
    assert np.abs(np.abs((components.directions * reference.components_).sum(axis=1)) - 1).max() < 1e-6
    assert np.allclose(np.abs(components.reduce(vectors)), np.abs(reference.transform(vectors)), atol=1e-4)
    assert (components.directions[np.arange(3), np.abs(components.directions).argmax(axis=1)] > 0).all()


def test_the_packaged_encoder_knows_what_is_alike():
    encoder = embeddings.SentenceEncoder(embeddings.PACKAGED_ENCODER, max_tokens=32, threads=1)
    vectors = encoder.encode(["A cat sits on the mat.", "A kitten is on the rug.", "Interest rates rose.", ""])
    assert vectors.shape == (4, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert (encoder.encode(["word " * 1_000_000]) == encoder.encode(["word " * 100])).all()


def test_exchanging_answers_exchanges_vectors_exactly():
    encoder = embeddings.SentenceEncoder(embeddings.PACKAGED_ENCODER, max_tokens=32, threads=1)
    # More texts than a batch: which texts share one must not depend on which answer is A.
    rows = range(30)
    table = pa.table(
        {
            "prompt": [[f"Question {n}"] for n in rows],
            "response_a": [["word " * (n % 7) + f"first {n}"] for n in rows],
            "response_b": [["other " * (n % 5) + f"second {n}"] for n in rows],
        }
    )
    given, turned = (encoder.encode_sides(DistinctTexts.of(each)) for each in (table, swap_records(table)))
    for side, other in (("prompt", "prompt"), ("a", "b"), ("b", "a")):
        np.testing.assert_array_equal(given[side], turned[other])


@pytest.mark.parametrize(
    ("model", "reason"), [("./nowhere", "no such folder"), ("/usr", "holds no config.json or modules.json")]
)
def test_a_folder_that_is_no_encoder_says_so(model, reason):
    with pytest.raises(InputError, match=reason):
        embeddings.locate_encoder(model)


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install sentence-transformers"):
        embeddings.locate_encoder("any/model")
