import numpy as np
import pytest

from infer.ensemble.pools import linear_pool, log_pool
from tests.helpers.blend_votes import votes


def test_the_pool_is_open_and_sums_to_one_even_over_certainties():
    certain = np.tile(np.array([1.0, 0.0, 0.0]), (2, 5, 1))
    pooled = linear_pool(certain, np.array([0.5, 0.5]))
    assert ((pooled > 0) & (pooled < 1)).all()
    assert np.allclose(pooled.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("pool", [linear_pool, log_pool])
def test_a_record_is_pooled_from_the_models_that_predict_it(pool):
    _, _, predictions = votes(20)
    weights = np.array([0.5, 0.3, 0.4]) if pool is log_pool else np.array([0.5, 0.3, 0.2])
    gappy = predictions.copy()
    gappy[0, :5] = np.nan
    gappy[1:, 5:10] = np.nan
    pooled = pool(gappy, weights)
    rest = weights[1:] * weights.sum() / weights[1:].sum()
    assert np.allclose(pooled[:5], pool(predictions[1:, :5], rest), atol=1e-12)
    assert np.allclose(pooled[5:10], pool(predictions[:1, 5:10], weights.sum(keepdims=True)), atol=1e-12)
    assert np.allclose(pooled[10:], pool(predictions[:, 10:], weights), atol=1e-12)
    # Models without weight are better than nothing, and equally good.
    only_first = pool(gappy, np.array([1.0, 0, 0]))
    assert np.allclose(only_first[:5], pool(predictions[1:, :5], np.array([0.5, 0.5])), atol=1e-12)
    gappy[:, 3] = np.nan
    with pytest.raises(ValueError, match="no model predicts 1 of 20 records"):
        pool(gappy, weights)
