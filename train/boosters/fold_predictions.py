"""Predict with a fold's model in both orders of the answers, and explain it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from core.registry import ENGINES
from train.boosters.data import EXPLAIN_ROWS, BoosterData, FoldResult, Importance
from votes.swap import position_effect, swap_average

if TYPE_CHECKING:
    from core.arrays import Doubles, Probabilities, Rows
    from core.settings.boosters import Booster
    from train.boosters.engine import BoosterRecipe, TrainedModel
    from train.boosters.matrix import Matrix

PREDICT_ROWS = 16384  # rows predicted at a time, to bound the memory of their swapped copies
SwapFeatures = Callable[["Matrix"], "Matrix"]  # returns the features of the same records with A and B exchanged


def predict_matrix(
    settings: Booster, model: bytes, features: Matrix, swap: SwapFeatures, floor: Doubles | None
) -> Probabilities:
    """Return probabilities (n, k) by the model of one fold, averaged over both orders if the settings say so.

    None of them is below `floor` (k,), which most models do not need.
    """
    orders = _predict_orders(settings, model, features, swap if settings.swaps else None)
    return raise_to_floor(swap_average(*orders) if settings.swaps else orders[0], floor)


def raise_to_floor(predicted: Probabilities, floor: Doubles | None) -> Probabilities:
    """Return probabilities (n, k) of which none is below `floor` (k,), before they are scaled to a sum of 1."""
    if floor is None or not floor.any():
        return predicted
    raised = np.maximum(predicted, floor)
    scaled: Probabilities = raised / raised.sum(axis=1, keepdims=True)
    return scaled


def _predict_orders(
    settings: Booster, model: bytes, features: Matrix, swap: SwapFeatures | None
) -> list[Probabilities]:
    """Return probabilities (n, k), and with `swap` also those for the other order."""
    engine, threads = ENGINES.get(settings.engine), settings.cpus_per_worker
    orders: list[list[Probabilities]] = [[] for _ in range(1 if swap is None else 2)]
    for start in range(0, max(len(features), 1), PREDICT_ROWS):
        part = features.rows(slice(start, start + PREDICT_ROWS))
        orders[0].append(engine.predict(model, part, threads))
        if swap is not None:
            orders[1].append(engine.predict(model, swap(part), threads))
    return [np.concatenate(parts) for parts in orders]


def sample_rows_to_explain(rows: Rows, seed: int) -> Rows:
    """Return EXPLAIN_ROWS of the rows at random, in their order; the first ones might be all of one kind."""
    if len(rows) <= EXPLAIN_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, EXPLAIN_ROWS, replace=False))


def predict_fold(
    recipe: BoosterRecipe, data: BoosterData, fold: int, model: TrainedModel, started: float
) -> FoldResult:
    """Return the result of a fold; `started` is when its training began (monotonic clock)."""
    settings = recipe.settings
    held_out = data.held_out_records(fold)
    first, second = _predict_orders(settings, model.content, data.features.rows(held_out), data.swapped)
    floor = data.outcome_floor(fold, settings.swaps)
    test = None
    if data.test_features is not None:
        test = predict_matrix(settings, model.content, data.test_features, data.swapped, floor)
    explained = data.features.rows(sample_rows_to_explain(held_out, recipe.seed + fold))
    gain, shap = ENGINES.get(settings.engine).importance(model.content, explained, settings.cpus_per_worker)
    return FoldResult(
        fold=fold,
        model=model,
        rows=held_out if data.records is None else data.records[held_out],
        out_of_fold=raise_to_floor(swap_average(first, second) if settings.swaps else first, floor),
        test=test,
        importance=Importance(data.names, data.families, gain, shap),
        position=position_effect(first, second),
        seconds=time.monotonic() - started,
        floor=floor,
    )
