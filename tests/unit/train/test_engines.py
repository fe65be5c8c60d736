"""LightGBM and XGBoost on their own, without Ray: checkpoints, sparse columns, early stopping, parameters."""

import contextlib
import dataclasses
import io
import json
import re
import warnings
from typing import Any

import numpy as np
import pytest

from core.errors import InputError
from core.registry import ENGINES
from tests.helpers.boosters import make_recipe, small_data, train_fold
from train.boosters.engine import BoosterRecipe
from train.boosters.engines.lightgbm import lightgbm_params

BOOSTED = ("lightgbm", "xgboost")
SAMPLING = {
    "lightgbm": {"num_leaves": 5, "bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.5},
    "xgboost": {"max_depth": 3, "subsample": 0.7, "colsample_bytree": 0.6, "colsample_bynode": 0.7, "eta": 0.1},
}


def sampling(engine: str, stop: int | None = None, every: int = 10) -> BoosterRecipe:
    return make_recipe(
        engine, 3, rounds=35, early_stopping_rounds=stop, params=SAMPLING[engine], checkpoint_every=every
    )


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("stop", [None, 4])
@pytest.mark.parametrize("engine", BOOSTED)
def test_a_fold_resumed_at_any_checkpoint_ends_in_the_same_bytes(engine: str, stop: int | None, sparse: bool) -> None:
    data, recipe = small_data(sparse), sampling(engine, stop)
    undisturbed, saved = train_fold(data, recipe, 1)
    assert len(saved) == (3 if stop is None else len(saved))
    assert saved
    for number, checkpoint in enumerate(saved, start=1):
        resumed, _ = train_fold(data, recipe, 1, checkpoint)
        assert resumed.resumed_at == 10 * number
        assert resumed.content == undisturbed.content
        assert resumed.best_iteration == undisturbed.best_iteration
        assert resumed.rounds_trained == undisturbed.rounds_trained


@pytest.mark.parametrize("engine", BOOSTED)
def test_learning_continues_after_a_checkpoint_as_without(engine: str) -> None:
    """The rounds behind a checkpoint keep their parameters: a learning rate that is lost would overfit at once."""
    data = small_data()
    losses = []
    for every in (7, 100):
        recipe = sampling(engine, None, every)
        fit, _ = train_fold(data, recipe, 0)
        held = data.held_out(0)
        predicted = ENGINES.get(engine).predict(fit.content, data.features.rows(held), 1)
        losses.append(-np.log(predicted[np.arange(len(held)), data.labels[held]]).mean())
    assert abs(losses[0] - losses[1]) < 0.05


@pytest.mark.parametrize("engine", BOOSTED)
def test_sparse_columns_train_as_the_library_trains_them(engine: str) -> None:
    data, recipe = small_data(sparse=True), sampling(engine, None, 100)
    fit, _ = train_fold(data, recipe, 0)
    held = data.features.rows(data.held_out(0))
    predicted = ENGINES.get(engine).predict(fit.content, held, 1)
    if engine == "lightgbm":  # for which a missing entry is a zero
        from train.boosters.matrix import Matrix

        def dense(each: Matrix) -> Matrix:
            return Matrix(each.joined().toarray())

        arrays = dataclasses.replace(data, features=dense(data.features), test_features=None)
        other, _ = train_fold(arrays, recipe, 0)
        assert np.abs(ENGINES.get(engine).predict(other.content, dense(held), 1) - predicted).max() < 1e-12
    else:
        import xgboost

        rest, labels, _ = data.sample(data.training_rows(0), swap=True)
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


@pytest.mark.parametrize("engine", BOOSTED)
@pytest.mark.parametrize("sparse", [False, True])
def test_importances_name_the_column_that_decides(engine: str, sparse: bool) -> None:
    data, recipe = small_data(sparse), sampling(engine)
    fit, _ = train_fold(data, recipe, 0)
    gain, shap = ENGINES.get(engine).importance(fit.content, data.features.rows(data.held_out(0)), 1)
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


def test_without_swap_only_the_given_order_is_seen() -> None:
    data = small_data()
    features, labels, weights = data.sample(data.training_rows(0), swap=False)
    assert len(features) == len(labels) == 200
    assert weights is None


@pytest.mark.parametrize("engine", BOOSTED)
@pytest.mark.parametrize("every", [1, 3])
def test_early_stopping_counts_on_across_checkpoints(engine: str, every: int) -> None:
    """A stop that falls on a checkpoint is a stop, and nothing is trained behind it."""
    params = {"learning_rate": 0.5}
    recipe = make_recipe(engine, 3, rounds=300, early_stopping_rounds=5, params=params, checkpoint_every=every)
    fit, _ = train_fold(small_data(), recipe, 0)
    assert fit.rounds_trained == fit.best_iteration + 5 < 300


def test_a_forest_that_would_need_a_checkpoint_is_refused() -> None:
    params = {"boosting_type": "rf", "bagging_fraction": 0.8, "bagging_freq": 1}
    forest: dict[str, Any] = {"rounds": 20, "early_stopping_rounds": None, "params": params}
    with pytest.raises(InputError, match="cannot resume from a checkpoint"):
        make_recipe("lightgbm", **forest, checkpoint_every=10)
    uninterrupted = make_recipe("lightgbm", **forest, checkpoint_every=20)
    ENGINES.get("lightgbm").try_parameters(small_data(), uninterrupted)
    fit, _ = train_fold(small_data(), uninterrupted, 0)
    assert fit.best_iteration == 20


@pytest.mark.parametrize(
    ("engine", "changes", "says"),
    [
        ("lightgbm", {"params": {"boosting": "dart"}, "checkpoint_every": 35}, "its best round cannot be kept"),
        ("lightgbm", {"params": {"boosting": "dart"}, "early_stopping_rounds": None}, "dart cannot resume from"),
        ("xgboost", {"params": {"booster": "dart"}}, "cut to its best round"),
        ("xgboost", {"params": {"booster": "gblinear"}, "early_stopping_rounds": None}, "cut to its best round"),
    ],
)
def test_kinds_of_boosting_whose_rounds_depend_on_later_ones_are_refused(
    engine: str, changes: dict[str, Any], says: str
) -> None:
    settings = sampling(engine, stop=5).settings
    with pytest.raises(InputError, match=says) as caught:
        type(settings)(**settings.model_dump() | changes)
    assert caught.value.where.startswith("boosters.small.params.boost")
    # Also where a search's candidate sets them, for which no settings are loaded.
    candidate = dataclasses.replace(sampling(engine), settings=settings.model_copy(update=changes))
    with pytest.raises(InputError, match=says):
        ENGINES.get(engine).try_parameters(small_data(), candidate)


def test_a_seed_under_another_name_moves_with_the_checkpoints() -> None:
    params = {"bagging_fraction_seed": 5, "bagging_fraction": 0.5, "bagging_freq": 1}
    assert lightgbm_params(make_recipe("lightgbm", params=params), first_round=10)["bagging_fraction_seed"] == 15


@pytest.mark.parametrize("engine", BOOSTED)
@pytest.mark.parametrize("params", [{"max_bin": 1}, {"max_depth": "deep"}])
def test_values_that_the_library_refuses_are_input_errors(engine: str, params: dict[str, Any]) -> None:
    recipe = make_recipe(engine, params=params)
    with pytest.raises(InputError, match=next(iter(params))) as caught:
        ENGINES.get(engine).try_parameters(small_data(), recipe)
    assert caught.value.where == "boosters.small.params"


@pytest.mark.parametrize(
    ("engine", "params", "says"),
    [
        ("xgboost", {"n_jobs": 8}, "n_jobs.*set cpus_per_worker"),
        ("xgboost", {"max_depht": 3}, "did you mean 'max_depth'"),
        ("lightgbm", {"n_iter": 3}, "set the rounds"),
        ("lightgbm", {"early_stopping": 1}, "set early_stopping_rounds"),
        ("lightgbm", {"learning_ratee": 0.5}, "did you mean 'learning_rate'"),
        ("lightgbm", {"num_leavs": 7}, "did you mean 'num_leaves'"),
        ("lightgbm", {"forcedsplits_filename": "x"}, "no files of its own"),
        ("linear", {"c_antii": 1.0}, "did you mean 'c_anti'"),
        ("linear", {"c_tie": -1.0}, "not a number above 0"),
    ],
)
def test_reserved_and_unknown_parameters_are_refused(engine: str, params: dict[str, Any], says: str) -> None:
    (name,) = params
    with pytest.raises(InputError, match=says) as caught:
        make_recipe(engine, params=params)
    assert caught.value.where == f"boosters.small.params.{name}"


def test_names_of_lightgbm_are_those_of_the_installed_package() -> None:
    import lightgbm

    table = lightgbm.basic._ConfigAliases._get_all_param_aliases()
    engine = ENGINES.get("lightgbm")
    assert set(engine.known_parameters()) == {name for names in table.values() for name in names}
    assert all(engine.main_name(name) == main for main, names in table.items() for name in names)


def test_names_of_xgboost_are_those_of_the_installed_package() -> None:
    """The list in the engine's file holds all that training configures, and nothing that it does not use."""
    import xgboost

    engine = ENGINES.get("xgboost")
    texts = {
        **{"booster": "dart", "device": "cpu", "grow_policy": "depthwise", "process_type": "default"},
        **{"sample_type": "uniform", "normalize_type": "tree", "sampling_method": "uniform", "tree_method": "hist"},
        **{"updater": "grow_quantile_histmaker", "interaction_constraints": "", "monotone_constraints": "()"},
        **{"multi_strategy": "one_output_per_tree", "base_score": "0.5", "max_bin": "16"},
    }
    matrix = xgboost.DMatrix(np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 3)

    def train(params: dict[str, Any]) -> tuple[Any, str]:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fixed = {"objective": "multi:softprob", "num_class": 3, "validate_parameters": True}
            trained = xgboost.train({"booster": "dart", **fixed, **params}, matrix, 1)
        return trained, output.getvalue() + "".join(str(warning.message) for warning in caught)

    unused = {
        name
        for name in set(engine.known_parameters()) - set(engine.reserved)
        if re.search(rf'Parameters: {{.*"{name}"', train({name: texts.get(name, 1)})[1])
    }
    assert not unused
    assert '"max_depht"' in train({"max_depht": 1})[1], "XGBoost names what it does not use"

    def names(config: Any, section: str = "") -> set[str]:
        if not isinstance(config, dict):
            return set()
        inside = [names(value, name) for name, value in config.items()]
        own = {name for name, value in config.items() if isinstance(value, str)} if section.endswith("param") else set()
        return own.union(*inside)

    configured = set.union(
        *(names(json.loads(train({"tree_method": method})[0].save_config())) for method in ("hist", "approx"))
    )
    model_facts = {"num_trees", "updater_seq", "num_feature", "num_target"}
    assert {"max_depth", "rate_drop"} <= configured
    assert configured - model_facts <= {*engine.known_parameters(), "num_class", "seed"}
