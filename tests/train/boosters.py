"""A small problem for boosters: features with a symmetry, and labels that depend on them."""

import numpy as np

from preference.swap import swap_labels
from train.booster import BoosterData

RECORDS, PAIRS, FOLDS = 300, 4, 3


def small_data() -> BoosterData:
    """Features: PAIRS columns of A, as many of B, as many differences A - B; the vote follows the first difference."""
    rng = np.random.default_rng(7)

    def features(count: int) -> np.ndarray:
        a, b = rng.normal(size=(2, count, PAIRS)).astype(np.float32)
        return np.concatenate([a, b, a - b], axis=1)

    train = features(RECORDS)
    lead = train[:, 2 * PAIRS] + rng.normal(scale=0.5, size=RECORDS)
    labels = np.where(lead > 0.5, 0, np.where(lead < -0.5, 1, 2)).astype(np.int8)
    assert (swap_labels(labels) != labels).any()
    columns = np.arange(PAIRS)
    return BoosterData(
        features=train,
        labels=labels,
        folds=(np.arange(RECORDS) % FOLDS).astype(np.int16),
        test_features=features(40),
        permutation=np.concatenate([columns + PAIRS, columns, columns + 2 * PAIRS]),
        signs=np.repeat([1, 1, -1], PAIRS).astype(np.float32),
        names=[f"{kind}_{i}" for kind in ("a", "b", "difference") for i in range(PAIRS)],
    )
