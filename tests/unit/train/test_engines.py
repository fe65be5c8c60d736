"""The engines on their own: what a fold's model is made of, without Ray."""

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest

from core.errors import InputError
from tests.helpers.boosters import small_data
from train.boosters.data import BoosterData, BoosterSettings, Engine, Fit
from train.boosters.engines import lightgbm
from train.boosters.fold_pool import EngineName

ENGINES: tuple[EngineName, ...] = ("lightgbm", "xgboost")
SAMPLING = {
    "lightgbm": {"num_leaves": 5, "bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.5},
    "xgboost": {"max_depth": 3, "subsample": 0.7, "colsample_bytree": 0.6, "colsample_bynode": 0.7, "eta": 0.1},
}


def library(engine: EngineName) -> Engine:
    return importlib.import_module(f"train.{engine}_engine")


def train(
    engine: EngineName, data: BoosterData, fold: int, asked: BoosterSettings, checkpoint: bytes | None = None
) -> tuple[Fit, list[bytes]]:
    """A fold's model, trained in a fresh process as it were, and its checkpoints."""
    trainer = library(engine).start(library(engine).prepare(data, asked), fold, asked, checkpoint)
    saved = []
    while not trainer.finished:
        trainer.advance()
        if not trainer.finished:
            saved.append(trainer.checkpoint())
    return trainer.fit(), saved


def settings(engine: EngineName, stop: int | None = None, every: int = 10) -> BoosterSettings:
    return BoosterSettings(35, stop, SAMPLING[engine], seed=3, checkpoint_every=every)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("stop", [None, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_fold_taken_up_at_any_checkpoint_ends_in_the_same_bytes(
    engine: EngineName, stop: int | None, sparse: bool
) -> None:
    data, asked = small_data(sparse), settings(engine, stop)
    whole, saved = train(engine, data, 1, asked)
    assert len(saved) == (3 if stop is None else len(saved))
    assert saved
    for number, checkpoint in enumerate(saved, start=1):
        resumed, _ = train(engine, data, 1, asked, checkpoint)
        assert resumed.resumed_at == 10 * number
        assert resumed.model == whole.model
        assert resumed.best_iteration == whole.best_iteration
        assert resumed.rounds_trained == whole.rounds_trained


@pytest.mark.parametrize("engine", ENGINES)
def test_learning_goes_on_behind_a_checkpoint_as_without(engine: EngineName) -> None:
    """The rounds behind a checkpoint keep their parameters: a learning rate that is lost would overfit at once."""
    data = small_data()
    losses = []
    for every in (7, 100):
        asked = settings(engine, None, every)
        fit, _ = train(engine, data, 0, asked)
        held = data.held_out(0)
        predicted = library(engine).predict(fit.model, data.features.rows(held), 1)
        losses.append(-np.log(predicted[np.arange(len(held)), data.labels[held]]).mean())
    assert abs(losses[0] - losses[1]) < 0.05


@pytest.mark.parametrize("engine", ENGINES)
def test_sparse_columns_train_as_the_library_trains_them(engine: EngineName) -> None:
    data, asked = small_data(sparse=True), settings(engine, None, 100)
    fit, _ = train(engine, data, 0, asked)
    held = data.features.rows(data.held_out(0))
    predicted = library(engine).predict(fit.model, held, 1)
    if engine == "lightgbm":  # for which a missing entry is a zero
        from train.boosters.matrix import Matrix

        def dense(each: Matrix) -> Matrix:
            return Matrix(each.joined().toarray())

        arrays = dataclasses.replace(data, features=dense(data.features), test_features=None)
        other, _ = train(engine, arrays, 0, asked)
        assert np.abs(library(engine).predict(other.model, dense(held), 1) - predicted).max() < 1e-12
    else:
        import xgboost

        rest, labels, _ = data.sample(data.rest(0), both_orders=True)
        params = {
            **SAMPLING[engine],
            "objective": "multi:softprob",
            "num_class": 3,
            "tree_method": "hist",
            "nthread": 1,
        }
        matrix = xgboost.DMatrix(rest.joined(), labels)
        direct = xgboost.train(params | {"seed": 3}, matrix, 35).predict(xgboost.DMatrix(held.joined()))
        assert np.abs(direct - predicted).max() < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sparse", [False, True])
def test_importances_name_the_column_that_decides(engine: EngineName, sparse: bool) -> None:
    data, asked = small_data(sparse), settings(engine)
    fit, _ = train(engine, data, 0, asked)
    gain, shap = library(engine).importance(fit.model, data.features.rows(data.held_out(0)), 1)
    decides = data.names.index("difference_0")
    assert gain.argmax() == shap.argmax() == decides
    assert gain.shape == shap.shape == (len(data.names),)
    assert (gain >= 0).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_exchanging_twice_changes_nothing(sparse: bool) -> None:
    data = small_data(sparse)
    once = data.swapped(data.features)
    twice = data.swapped(once)
    original = data.features.joined()
    if sparse:
        assert (once.joined() != original).nnz
        assert (twice.joined() != original).nnz == 0
    else:
        assert (once.joined() != original).any()
        assert (twice.joined() == original).all()


def test_without_both_orders_only_the_given_order_is_seen() -> None:
    data = small_data()
    features, labels, weights = data.sample(data.rest(0), both_orders=False)
    assert len(features) == len(labels) == 200
    assert weights is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("every", [1, 3])
def test_early_stopping_counts_on_across_checkpoints(engine: EngineName, every: int) -> None:
    """A stop that falls on a checkpoint is a stop, and nothing is trained behind it."""
    asked = BoosterSettings(300, 5, {"learning_rate": 0.5}, seed=3, checkpoint_every=every)
    fit, _ = train(engine, small_data(), 0, asked)
    assert fit.rounds_trained == fit.best_iteration + 5 < 300


def test_a_forest_that_would_need_a_checkpoint_is_refused() -> None:
    forest = {"boosting_type": "rf", "bagging_fraction": 0.8, "bagging_freq": 1}
    asked = BoosterSettings(20, None, forest, checkpoint_every=10)
    with pytest.raises(InputError, match="cannot go on from a checkpoint"):
        library("lightgbm").check(small_data(), asked)
    whole = BoosterSettings(20, None, forest, checkpoint_every=20)
    library("lightgbm").check(small_data(), whole)
    fit, _ = train("lightgbm", small_data(), 0, whole)
    assert fit.best_iteration == 20


@pytest.mark.parametrize(
    ("engine", "changes", "says"),
    [
        ("lightgbm", {"params": {"boosting": "dart"}, "checkpoint_every": 35}, "its best round cannot be kept"),
        ("lightgbm", {"params": {"boosting": "dart"}, "early_stopping_rounds": None}, "dart cannot go on from"),
        ("xgboost", {"params": {"booster": "dart"}}, "cut to its best round"),
        ("xgboost", {"params": {"booster": "gblinear"}, "early_stopping_rounds": None}, "cut to its best round"),
    ],
)
def test_boosters_whose_rounds_do_not_stand_by_themselves_are_refused(
    engine: EngineName, changes: dict[str, Any], says: str
) -> None:
    asked = dataclasses.replace(settings(engine, stop=5), **changes)
    with pytest.raises(InputError, match=says):
        library(engine).check(small_data(), asked)


def test_a_seed_under_another_name_moves_with_the_checkpoints() -> None:
    given = BoosterSettings(20, None, {"bagging_fraction_seed": 5, "bagging_fraction": 0.5, "bagging_freq": 1})
    assert lightgbm.native_params(given, first_round=10)["bagging_fraction_seed"] == 15


@pytest.mark.parametrize("engine", [*ENGINES, "two_part"])
def test_the_votes_of_a_fold_have_no_say_in_its_model(engine: EngineName) -> None:
    data = small_data()
    asked = BoosterSettings(20, None, SAMPLING.get(engine, {}), seed=3)
    labels = data.labels.copy()
    labels[data.held_out(1)] = np.random.default_rng(0).integers(3, size=len(data.held_out(1)))
    one, other = (train(engine, each, 1, asked)[0] for each in (data, dataclasses.replace(data, labels=labels)))
    assert one.model == other.model


@pytest.mark.parametrize(
    ("engine", "params", "says"),
    [
        ("xgboost", {"n_jobs": 8}, "n_jobs"),
        ("lightgbm", {"n_iter": 3}, "set the rounds"),
        ("lightgbm", {"early_stopping": 1}, "set the early stopping rounds"),
        ("lightgbm", {"learning_ratee": 0.5}, "did you mean 'learning_rate'"),
        ("lightgbm", {"forcedsplits_filename": "x"}, "no files of its own"),
    ],
)
def test_reserved_and_unknown_parameters_are_refused(engine: EngineName, params: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(engine, small_data(), 0, BoosterSettings(5, None, params))
