"""What a fold's model predicts, in either order of the answers, and what explains it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from train.boosters.data import (
    EXPLAIN_ROWS,
    BoosterData,
    BoosterSettings,
    Engine,
    Fit,
    FoldResult,
    Importance,
    Probabilities,
)
from votes.swap import position_effect, swap_average

if TYPE_CHECKING:
    from train.boosters.matrix import Matrix, Rows

PREDICT_ROWS = 16384  # rows predicted at a time, to bound the memory of their swapped copies


def predict_records(
    library: Engine, model: bytes, features: Matrix, threads: int, swapped: Callable[[Matrix], Matrix] | None
) -> Probabilities:
    """Probabilities (n, 3) by the model of one fold: averaged over both orders if `swapped` gives the other one."""
    orders = _predict_orders(library, model, features, threads, swapped)
    return orders[0] if swapped is None else swap_average(*orders)


def _predict_orders(
    library: Engine, model: bytes, features: Matrix, threads: int, swapped: Callable[[Matrix], Matrix] | None
) -> list[Probabilities]:
    """Probabilities (n, 3), and with `swapped` then those for the other order."""
    orders: list[list[Probabilities]] = [[np.empty((0, 3))] for _ in range(1 if swapped is None else 2)]
    for start in range(0, len(features), PREDICT_ROWS):
        part = features.rows(slice(start, start + PREDICT_ROWS))
        orders[0].append(library.predict(model, part, threads))
        if swapped is not None:
            orders[1].append(library.predict(model, swapped(part), threads))
    return [np.concatenate(parts) for parts in orders]


def some_rows(rows: Rows, seed: int) -> Rows:
    """EXPLAIN_ROWS of the rows, in their order; the first ones might be all of one kind."""
    if len(rows) <= EXPLAIN_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, EXPLAIN_ROWS, replace=False))


def predict_fold(
    library: Engine,
    data: BoosterData,
    fit: Fit,
    taken_over: bool,
    fold: int,
    settings: BoosterSettings,
    started: float,
) -> FoldResult:
    """What a fold leaves behind, its model trained or `taken_over`; `started` is when it began (monotonic clock)."""
    held_out = data.held_out(fold)
    threads = settings.cpus_per_fold
    first, second = _predict_orders(library, fit.model, data.features.rows(held_out), threads, data.swapped)
    test = None
    if data.test_features is not None:
        swapped = data.swapped if settings.both_orders else None
        test = predict_records(library, fit.model, data.test_features, threads, swapped)
    explained = data.features.rows(some_rows(held_out, settings.seed + fold))
    gain, shap = library.importance(fit.model, explained, threads)
    return FoldResult(
        fold=fold,
        model=fit.model,
        best_iteration=fit.best_iteration,
        rounds_trained=fit.rounds_trained,
        resumed_at=fit.resumed_at,
        rows=held_out,
        out_of_fold=swap_average(first, second) if settings.both_orders else first,
        test=test,
        importance=Importance(data.names, data.families, gain, shap),
        position=position_effect(first, second),
        taken=taken_over,
        seconds=time.monotonic() - started,
    )
