import dataclasses
import json

import numpy as np
import pytest

from infer.ensemble.blender import Blender
from infer.ensemble.fallbacks import BOTH_EMPTY, EMPTY_A, EMPTY_B, IDENTICAL
from infer.ensemble.fit import BLENDS, Recipe, blend_parts, fit, nested, nested_without
from infer.ensemble.pools import open_simplex
from metrics.baselines import class_prior
from metrics.scores import log_loss
from tests.helpers.blend_votes import demo_votes, draw, sharpened, training, votes
from votes.swap import swap_labels, swap_probabilities

PRESET = {"m0": 3.0, "m2": 1.0, "elsewhere": 5.0}
TURNED = np.array([0, EMPTY_B, EMPTY_A, BOTH_EMPTY, IDENTICAL], np.int8)


def recipe(name, calibration="auto", length_debias=False):
    return Recipe(name, calibration, length_debias, PRESET if name == "preset" else {})


def swapped(data):
    return dataclasses.replace(
        data,
        predictions=data.predictions[:, :, [1, 0, 2]],
        labels=swap_labels(data.labels),
        cases=TURNED[data.cases],
        differences=-data.differences,
    )


@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.parametrize("calibration", ["auto", "isotonic"])
def test_no_part_of_a_blend_saw_the_votes_it_is_scored_on(name, calibration):
    """Weights, the choice of the pool, calibration, its choice, length and guards: all from other parts."""
    _, labels, predictions = votes(200)
    data = training(predictions, labels, degenerate=120)
    changed = labels.copy()
    changed[data.parts == 2] = (changed[data.parts == 2] + 1) % 3
    wanted = recipe(name, calibration, length_debias=True)
    before, after = (nested(dataclasses.replace(data, labels=these), wanted) for these in (labels, changed))
    own = data.parts == 2
    pairs = [(before.predictions, after.predictions)]
    pairs += [(before.calibrated[method], after.calibrated[method]) for method in before.calibrated]
    for one, other in pairs:
        assert (one[own] == other[own]).all()
    if name not in ("equal", "preset"):  # of which little or nothing is learnt
        assert (before.predictions[~own] != after.predictions[~own]).any()


@pytest.mark.parametrize("name", BLENDS)
def test_exchanging_a_and_b_exchanges_the_blend(name):
    _, labels, predictions = votes(400)
    predictions[0, 200:250] = np.nan
    data = training(predictions, labels, degenerate=200)
    wanted = recipe(name, length_debias=True)
    blender = fit(data, wanted).blender
    one_way = blender.predict(data.predictions, data.cases, data.differences)
    turned = swapped(data)
    other_way = blender.predict(turned.predictions, turned.cases, turned.differences)
    assert np.allclose(other_way, swap_probabilities(one_way), atol=1e-12)
    assert ((one_way > 0) & (one_way < 1)).all()
    assert np.allclose(one_way.sum(axis=1), 1, atol=1e-12)
    refitted = fit(turned, wanted).blender.predict(turned.predictions, turned.cases, turned.differences)
    assert np.allclose(refitted, swap_probabilities(one_way), atol=1e-3)


def test_learnt_is_the_better_pool():
    truth, labels, _ = votes(1500)
    rng = np.random.default_rng(5)
    flat = np.stack([sharpened(open_simplex(truth + rng.normal(0, 0.02, truth.shape)), 0.4) for _ in range(2)])
    assert fit(training(flat, labels), recipe("learnt", "none")).blender.pool == "log"
    # Voters who trust one of two models each: their votes are drawn from the mean.
    both = rng.dirichlet([0.3, 0.3, 0.3], size=(2, 1500))
    both = np.stack([open_simplex(each) for each in both])
    assert fit(training(both, draw(both.mean(axis=0), rng)), recipe("learnt", "none")).blender.pool == "linear"


def test_two_views_of_the_truth_are_better_together():
    truth, labels, _ = votes(1500, seed=2)
    rng = np.random.default_rng(5)
    views = np.stack([open_simplex(truth + rng.normal(0, 0.15, truth.shape)) for _ in range(2)])
    for name in ("learnt", "greedy"):
        pooled = log_loss(nested(training(views, labels), recipe(name, "none")).predictions, labels)
        assert pooled < min(log_loss(view, labels) for view in views) - 0.01


def test_noise_gets_no_weight_and_a_mis_scaled_model_its_best():
    truth, labels = demo_votes(2000, seed=5)
    rng = np.random.default_rng(0)
    noisy = open_simplex(np.abs(truth + rng.normal(0, 0.05, truth.shape)))
    noise = rng.dirichlet([1, 1, 1], size=len(labels))
    fitted = fit(training(np.stack([noisy, sharpened(truth, 2.5), noise]), labels), recipe("learnt")).blender
    assert fitted.weights[2] < 0.02 * sum(fitted.weights)
    alone = training(sharpened(truth, 2.5)[None], labels)
    assert fit(alone, recipe("linear")).blender.calibration.method == "temperature"
    assert log_loss(nested(alone, recipe("linear")).predictions, labels) < log_loss(truth, labels) + 0.003


def test_a_calibration_that_is_asked_for_is_used():
    truth, labels, _ = votes(800)
    data = training(truth[None], labels)
    made = {name: fit(data, recipe("linear", name)).blender.calibration.method for name in ("none", "vector")}
    assert made == {"none": "none", "vector": "vector"}


def test_guards_reach_predictions_and_only_theirs():
    _, labels, predictions = votes(600)
    data = training(predictions, labels, degenerate=400)
    labels = np.where(data.cases == IDENTICAL, 2, labels).astype(np.int8)
    fitted = fit(dataclasses.replace(data, labels=labels), recipe("linear", "none"))
    assert fitted.blender.guards.keys() >= {"identical"}
    made = fitted.blender.predict(data.predictions, data.cases, data.differences)
    assert len(np.unique(made[data.cases == IDENTICAL], axis=0)) == 1
    assert made[data.cases == IDENTICAL][0, 2] > 0.8
    bare = dataclasses.replace(fitted.blender, guards={}).predict(data.predictions, data.cases, data.differences)
    assert (made[data.cases == 0] == bare[data.cases == 0]).all()
    one = dataclasses.replace(fitted.blender, guards={"empty_b": (0.7, 0.1, 0.2)})
    by_one = one.predict(data.predictions, data.cases, data.differences)
    assert (by_one[data.cases == EMPTY_B] == [0.7, 0.1, 0.2]).all()
    assert (by_one[data.cases != EMPTY_B] == bare[data.cases != EMPTY_B]).all()


def test_the_preset_stays_as_published():
    _, labels, predictions = votes(400)
    blender = fit(training(sharpened(predictions.reshape(-1, 3), 3).reshape(3, -1, 3), labels, degenerate=200),
                  recipe("preset")).blender  # fmt: skip
    assert blender.weights == (0.75, 0.0, 0.25)
    assert (blender.calibration.method, blender.guards, blender.length_coefficient) == ("none", {}, None)


def test_length_is_taken_out_of_ordinary_records_only():
    _, labels, predictions = votes(600)
    data = training(predictions, labels, degenerate=100)
    blender = fit(data, recipe("linear", "none", length_debias=True)).blender
    assert blender.length_coefficient is not None
    with_length = dataclasses.replace(blender, length_coefficient=None)
    strong = dataclasses.replace(blender, length_coefficient=2.0)
    changed = strong.predict(data.predictions, data.cases, data.differences) != with_length.predict(
        data.predictions, data.cases, data.differences
    )
    assert changed[data.cases == 0].any(axis=1).all()
    assert not changed[data.cases != 0].any()


@pytest.mark.parametrize("calibration", ["none", "temperature", "vector", "isotonic"])
def test_a_blender_read_from_json_gives_the_same_numbers(calibration):
    _, labels, predictions = votes(600)
    predictions[1, 300:330] = np.nan
    data = training(predictions, labels, degenerate=300)
    labels = np.where(data.cases == IDENTICAL, 2, labels).astype(np.int8)
    blender = fit(dataclasses.replace(data, labels=labels), recipe("learnt", calibration, length_debias=True)).blender
    assert blender.guards
    read = Blender.from_json(json.loads(json.dumps(blender.to_json())))
    assert read == blender
    arguments = (data.predictions, data.cases, data.differences)
    assert (read.predict(*arguments) == blender.predict(*arguments)).all()
    # One record alone is predicted as it is among others.
    alone = read.predict(predictions[:, 310:311], data.cases[310:311], data.differences[310:311])
    assert np.allclose(alone, blender.predict(*arguments)[310:311], atol=1e-12)


def test_a_model_that_carries_the_blend_is_missed():
    _, labels, predictions = votes(500)
    data = training(predictions, labels)
    whole = log_loss(nested(data, recipe("learnt")).predictions, labels)
    without = {name: log_loss(nested_without(data, recipe("learnt"), name), labels) for name in data.models}
    assert without["m0"] > whole + 0.02
    assert abs(without["m2"] - whole) < 0.005


def test_what_only_the_left_out_model_predicts_gets_the_class_prior():
    _, labels, predictions = votes(300)
    predictions[1:, :20] = np.nan
    data = training(predictions, labels)
    prior = class_prior(labels, data.parts)
    made = nested_without(data, recipe("linear"), "m0")
    assert (made[:20] == prior[:20]).all()
    assert (made[20:] != prior[20:]).all()
    assert (nested_without(data.only(("m0",)), recipe("linear"), "m0") == prior).all()
    only_named = Recipe("preset", "none", preset={"m0": 1.0})
    assert (nested_without(data, only_named, "m0") == prior).all()


@pytest.mark.parametrize("folds", [2, 3, 5, 10, 37])
def test_parts_keep_prompts_whole_and_are_enough_to_nest(folds):
    rng = np.random.default_rng(folds)
    fold_of_group = rng.permutation(np.arange(700) % folds).astype(np.int16)
    groups = rng.integers(0, 700, 2000)
    parts = blend_parts(fold_of_group[groups], groups)
    assert 5 <= len(np.unique(parts)) <= 10
    for group in range(700):
        assert len(np.unique(parts[groups == group])) <= 1
    many = rng.integers(0, 700, 12_000)
    assert 5 <= len(np.unique(blend_parts(fold_of_group[many], many))) <= 6
