"""A small problem for boosters: features with a symmetry, and labels that depend on them."""

from typing import Any

import numpy as np
import scipy.sparse

from core.registry import ENGINES
from core.settings.boosters import Booster
from train.boosters.data import BoosterData
from train.boosters.engine import BoosterRecipe, TrainedModel, train_to_end
from train.boosters.matrix import Matrix
from votes.swap import swap_labels

RECORDS, PAIRS, FOLDS = 300, 4, 3


def small_data(sparse: bool = False) -> BoosterData:
    """Features: PAIRS columns of A, as many of B, as many differences A - B; the vote follows the first difference.

    With `sparse` the columns of A and B are mostly zero and kept in a sparse part, behind the differences.
    """
    rng = np.random.default_rng(7)

    def features(count: int) -> np.ndarray:
        a, b = rng.normal(size=(2, count, PAIRS)).astype(np.float32)
        return np.concatenate([a, b, a - b], axis=1)

    train = features(RECORDS)
    lead = train[:, 2 * PAIRS] + rng.normal(scale=0.5, size=RECORDS)
    labels = np.where(lead > 0.5, 0, np.where(lead < -0.5, 1, 2)).astype(np.int8)
    assert (swap_labels(labels) != labels).any()
    columns = np.arange(PAIRS)
    names = [f"{kind}_{i}" for kind in ("a", "b", "difference") for i in range(PAIRS)]
    permutation = np.concatenate([columns + PAIRS, columns, columns + 2 * PAIRS])
    signs = np.repeat([1, 1, -1], PAIRS).astype(np.float32)
    order = np.arange(3 * PAIRS)
    if sparse:
        order = np.concatenate([columns + 2 * PAIRS, columns, columns + PAIRS])
        permutation = np.concatenate([columns, columns + 2 * PAIRS, columns + PAIRS])

    def matrix(values: np.ndarray) -> Matrix:
        if not sparse:
            return Matrix(values)
        thinned = np.where(np.abs(values[:, : 2 * PAIRS]) > 1, values[:, : 2 * PAIRS], 0)
        return Matrix(np.ascontiguousarray(values[:, 2 * PAIRS :]), scipy.sparse.csr_matrix(thinned))

    return BoosterData(
        features=matrix(train),
        labels=labels,
        folds=(np.arange(RECORDS) % FOLDS).astype(np.int16),
        test_features=matrix(features(40)),
        permutation=permutation,
        signs=signs[order],
        names=[names[i] for i in order],
        families=[names[i].partition("_")[0] for i in order],
        sources=np.zeros(RECORDS, np.int16),
    )


def rows_in_both_orders(data: BoosterData) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of `small_data` that both orders are trained on, written out again.

    First stands the order in which A's first column is the larger one.
    """
    features = data.features.dense
    turned = features[:, 0] < features[:, PAIRS]
    a, b, difference = (features[:, n * PAIRS : (n + 1) * PAIRS] for n in range(3))
    swapped = np.concatenate([b, a, -difference], axis=1)
    labels, other = data.labels, np.array([1, 0, 2], np.int8)[data.labels]
    x = np.concatenate([np.where(turned[:, None], one, two) for one, two in ((swapped, features), (features, swapped))])
    return x, np.concatenate([np.where(turned, other, labels), np.where(turned, labels, other)])


def make_recipe(engine: str, seed: int = 0, **settings: Any) -> BoosterRecipe:
    """How to train a small model; `settings` are those of a booster."""
    return BoosterRecipe(Booster(name="small", engine=engine, **settings), seed)


def train_fold(
    data: BoosterData, recipe: BoosterRecipe, fold: int, checkpoint: bytes | None = None
) -> tuple[TrainedModel, list[bytes]]:
    """Return a fold's model, trained as in a fresh process, and its checkpoints."""
    engine = ENGINES.get(recipe.settings.engine)
    saved: list[bytes] = []
    model = train_to_end(engine.start(engine.prepare(data, recipe), recipe, fold, checkpoint), saved.append)
    return model, saved
