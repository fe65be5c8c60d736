"""What every engine of the registry keeps, and an engine of a plugin that keeps it."""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from core.errors import InputError
from core.registry import ENGINES, load_plugins, plugin_digest
from core.run import Run
from core.settings.loader import load_settings
from metrics.scores import log_loss
from tests.helpers.boosters import FOLDS, RECORDS, make_recipe, small_data, train_fold
from train.boosters.engine import BoosterEngine, BoosterRecipe
from train.boosters.fold_predictions import predict_fold
from train.boosters.matrix import exchange_rows
from train.boosters.stages import booster_stage_settings
from votes.swap import swap_labels

# With random numbers, so that a resumed training must draw the same ones.
PARAMS = {
    "lightgbm": {"num_leaves": 5, "bagging_fraction": 0.7, "bagging_freq": 1},
    "xgboost": {"max_depth": 3, "subsample": 0.7},
}


def small_recipe(name: str) -> BoosterRecipe:
    return make_recipe(name, 3, rounds=24, early_stopping_rounds=None, checkpoint_every=10, params=PARAMS.get(name, {}))


def check_attributes(name: str) -> None:
    engine = ENGINES.get(name)
    assert isinstance(engine, BoosterEngine)
    assert engine.name == name
    assert engine.title
    assert engine.summary.endswith(".")
    assert engine.model_file
    assert set(engine.reserved) <= set(map(engine.main_name, engine.known_parameters()))
    for space in engine.search_spaces.values():
        engine.check_parameters({key: dimension.high for key, dimension in space.items() if key != "rounds"})


def check_unknown_parameters(name: str) -> None:
    known = max(ENGINES.get(name).known_parameters(), key=len)
    settings = f"run: r\nboosters: [{{name: small, engine: {name}, params: {{{known}x: 1}}}}]"
    with pytest.raises(InputError, match=f"has no parameter '{known}x'.*did you mean") as caught:
        load_settings(settings, "c.yaml")
    assert caught.value.where == f"c.yaml: boosters.small.params.{known}x"


def check_training(name: str, sparse: bool = False) -> None:
    """Every fold trains, predicts its records and explains them; checkpoints resume to the same bytes."""
    data, recipe, engine = small_data(sparse), small_recipe(name), ENGINES.get(name)
    engine.try_parameters(data, recipe)
    out_of_fold = np.full((RECORDS, 3), np.nan)
    for fold in range(FOLDS):
        model, checkpoints = train_fold(data, recipe, fold)
        assert bool(checkpoints) == engine.has_rounds
        assert model.resumed_at == 0
        for checkpoint in checkpoints:
            resumed, _ = train_fold(data, recipe, fold, checkpoint)
            assert resumed.content == model.content
            assert 0 < resumed.resumed_at < resumed.rounds_trained == model.rounds_trained
        result = predict_fold(recipe, data, fold, model, 0.0)
        out_of_fold[result.rows] = result.out_of_fold
        assert result.test is not None
        assert np.abs(result.test.sum(axis=1) - 1).max() < 1e-6
        if engine.swap_consistent:
            assert result.position["flip_rate"] == 0
        for values in (result.importance.gain, result.importance.shap):
            assert values.shape == (len(data.names),)
            assert (values >= 0).all()
    assert np.abs(out_of_fold.sum(axis=1) - 1).max() < 1e-6
    prior = np.bincount(data.labels, minlength=3) / RECORDS
    assert log_loss(out_of_fold, data.labels) < log_loss(np.tile(prior, (RECORDS, 1)), data.labels) - 0.05


def check_held_out_votes(name: str) -> None:
    """The votes of a fold do not change its model."""
    data, recipe = small_data(), small_recipe(name)
    labels = data.labels.copy()
    labels[data.held_out(1)] = np.random.default_rng(0).integers(3, size=len(data.held_out(1)))
    other = dataclasses.replace(data, labels=labels)
    assert train_fold(data, recipe, 1)[0].content == train_fold(other, recipe, 1)[0].content


def check_exchange(name: str, sparse: bool) -> None:
    """Some records with A and B exchanged give the same model: random draws of rows do not depend on who is A."""
    data, recipe = small_data(sparse), small_recipe(name)
    chosen = np.random.default_rng(1).random(RECORDS) < 0.5
    features, _ = exchange_rows(data.features, data.swapped(data.features), chosen)
    labels = np.where(chosen, swap_labels(data.labels), data.labels)
    other = dataclasses.replace(data, features=features, labels=labels)
    assert train_fold(data, recipe, 0)[0].content == train_fold(other, recipe, 0)[0].content


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ENGINES.names())
def test_exchanging_answers_of_records_gives_the_same_model(name: str, sparse: bool) -> None:
    check_exchange(name, sparse)


@pytest.mark.parametrize("name", ENGINES.names())
def test_attributes_and_search_spaces_fit(name: str) -> None:
    check_attributes(name)


def test_models_are_trained_again_with_another_version_of_the_engines_library(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(load_settings("run: r\nboosters: [{name: small, engine: xgboost}]", "c.yaml"))
    settings = booster_stage_settings(run, run.settings.boosters[0])
    assert set(settings["versions"]) == {"xgboost", "xgboost-ray"}
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99" if name == "xgboost" else version(name))
    assert booster_stage_settings(run, run.settings.boosters[0])["versions"] != settings["versions"]
    monkeypatch.setattr(type(ENGINES.get("xgboost")), "libraries", ("no-such-library",))
    with pytest.raises(InputError, match="the package no-such-library is not installed"):
        booster_stage_settings(run, run.settings.boosters[0])


@pytest.mark.parametrize("name", ENGINES.names())
def test_an_unknown_parameter_is_refused_when_settings_are_loaded(name: str) -> None:
    check_unknown_parameters(name)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ENGINES.names())
def test_folds_train_resume_predict_and_explain(name: str, sparse: bool) -> None:
    check_training(name, sparse)


@pytest.mark.parametrize("name", ENGINES.names())
def test_the_votes_of_a_fold_have_no_part_in_its_model(name: str) -> None:
    check_held_out_votes(name)


PLUGIN = '''
"""Softmax regression by gradient descent; a round is a step."""
import json

import numpy as np

from core.registry import ENGINES
from core.settings.tune import Dimension
from train.boosters.engine import BoosterEngine, FoldTrainer, TrainedModel


def dense(features):
    joined = features.joined()
    values = joined if isinstance(joined, np.ndarray) else joined.toarray()
    return np.hstack([values, np.ones((len(values), 1))]).astype(float)


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Descent(FoldTrainer):
    def __init__(self, data, recipe, fold, checkpoint):
        self.settings = recipe.settings
        rows = data.sample(data.training_rows(fold), recipe.settings.swaps)
        self.x, self.y = dense(rows.features), np.eye(3)[rows.labels]
        self.held_x, self.held_y = dense(data.features.rows(data.held_out(fold))), data.labels[data.held_out(fold)]
        start = {"done": 0, "weights": np.zeros((self.x.shape[1], 3)).tolist()}
        saved = json.loads(checkpoint) if checkpoint else start
        self.done = self.resumed_at = saved["done"]
        self.weights = np.array(saved["weights"])
        self.finished = False

    @property
    def best_score(self):
        predicted = softmax(self.held_x @ self.weights)
        return float(-np.log(predicted[np.arange(len(self.held_y)), self.held_y]).mean())

    def advance(self):
        rate = self.settings.params.get("rate", 1.0)
        for _ in range(min(self.settings.checkpoint_every, self.settings.rounds - self.done)):
            self.weights -= rate * self.x.T @ (softmax(self.x @ self.weights) - self.y) / len(self.x)
            self.done += 1
        self.finished = self.done == self.settings.rounds

    def checkpoint(self):
        return json.dumps({"done": self.done, "weights": self.weights.tolist()}).encode()

    def model(self):
        return TrainedModel(json.dumps(self.weights.tolist()).encode(), self.done, self.done, self.resumed_at)


@ENGINES.register
class Softmax(BoosterEngine):
    name = "softmax"
    title = "softmax regression"
    summary = "Softmax regression by gradient descent."
    model_file = "weights.json"
    search_spaces = {"default": {"rate": Dimension(low=0.1, high=2.0, log=True)}}

    def known_parameters(self):
        return ["rate"]

    def prepare(self, data, recipe, keep_folds=False):
        return data

    def start(self, prepared, recipe, fold, checkpoint):
        return Descent(prepared, recipe, fold, checkpoint)

    def predict(self, model, features, threads):
        return softmax(dense(features) @ np.array(json.loads(model)))

    def importance(self, model, features, threads):
        weights = np.abs(np.array(json.loads(model))[:-1])
        return weights.sum(axis=1), weights.mean(axis=1) * np.abs(dense(features)[:, :-1]).mean(axis=0)
'''


@pytest.fixture
def plugin() -> Iterator[str]:
    load_plugins({"tiebreak_plugin_softmax": PLUGIN})
    yield "softmax"
    del ENGINES._members["softmax"], sys.modules["tiebreak_plugin_softmax"]


def test_an_engine_in_one_file_keeps_the_contract(plugin: str) -> None:
    check_attributes(plugin)
    check_unknown_parameters(plugin)
    check_training(plugin)
    check_training(plugin, sparse=True)
    check_held_out_votes(plugin)
    check_exchange(plugin, sparse=False)
    assert plugin_digest(ENGINES.get(plugin))
    with pytest.raises(InputError, match="trains a fold in one process") as caught:
        make_recipe(plugin, num_workers=2)
    assert caught.value.where == "boosters.small.num_workers"


def test_a_plugin_s_engine_is_searched_in_its_own_space(plugin: str) -> None:
    text = "run: r\nboosters: [{name: small, engine: softmax}]\ntune: [{booster: small, folds: 2, space: default}]"
    (search,) = load_settings(text, "c.yaml").tune
    assert list(search.space_of(plugin)) == ["rate"]
    with pytest.raises(InputError, match="no search space 'published'"):
        load_settings(text, "c.yaml", ["tune.0.space=published"])
