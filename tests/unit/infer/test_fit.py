import dataclasses
import json

import numpy as np
import pytest

from infer.ensemble.blender import Blender
from infer.ensemble.fallbacks import BOTH_EMPTY, EMPTY_A, EMPTY_B, IDENTICAL
from infer.ensemble.fit import BLEND_NAMES, BlendRecipe, fit_blend, nested_parts, predict_nested, predict_nested_without
from infer.ensemble.pools import clip_to_simplex
from infer.ensemble.record_facts import RecordFacts
from metrics.baselines import class_prior_baseline
from metrics.scores import log_loss
from tests.helpers.blend_votes import demo_votes, draw, sharpened, training, votes
from votes.swap import swap_labels, swap_probabilities

PRESET = {"m0": 3.0, "m2": 1.0, "elsewhere": 5.0}
TURNED = np.array([0, EMPTY_B, EMPTY_A, BOTH_EMPTY, IDENTICAL], np.int8)


def recipe(name, calibration="auto", length_debias=False):
    return BlendRecipe(name, calibration, length_debias, PRESET if name == "preset" else {})


def swapped(data):
    return dataclasses.replace(
        relabeled(data, swap_labels(data.votes.labels)),
        predictions=data.predictions[:, :, [1, 0, 2]],
        facts=RecordFacts(TURNED[data.facts.cases], -data.facts.length_differences),
    )


def relabeled(data, labels):
    return dataclasses.replace(data, votes=dataclasses.replace(data.votes, labels=labels))


@pytest.mark.parametrize("name", BLEND_NAMES)
@pytest.mark.parametrize("calibration", ["auto", "isotonic"])
def test_no_part_of_a_blend_saw_the_votes_it_is_scored_on(name, calibration):
    """Weights, the choice of the pool, calibration, its choice, length and fallbacks: all from other parts."""
    _, labels, predictions = votes(200)
    data = training(predictions, labels, degenerate=120)
    changed = labels.copy()
    changed[data.votes.folds == 2] = (changed[data.votes.folds == 2] + 1) % 3
    chosen_recipe = recipe(name, calibration, length_debias=True)
    before, after = (predict_nested(relabeled(data, these), chosen_recipe) for these in (labels, changed))
    own = data.votes.folds == 2
    pairs = [(before.blend, after.blend)]
    pairs += [(before.calibrated[method], after.calibrated[method]) for method in before.calibrated]
    for one, other in pairs:
        assert (one[own] == other[own]).all()
    if name not in ("equal", "preset"):  # little or nothing is learned of these
        assert (before.blend[~own] != after.blend[~own]).any()


@pytest.mark.parametrize("name", BLEND_NAMES)
def test_exchanging_a_and_b_exchanges_the_blend(name):
    _, labels, predictions = votes(400)
    predictions[0, 200:250] = np.nan
    data = training(predictions, labels, degenerate=200)
    chosen_recipe = recipe(name, length_debias=True)
    blender = fit_blend(data, chosen_recipe).blender
    one_way = blender.predict(data.predictions, data.facts)
    turned = swapped(data)
    other_way = blender.predict(turned.predictions, turned.facts)
    np.testing.assert_array_equal(other_way, swap_probabilities(one_way))
    assert ((one_way > 0) & (one_way < 1)).all()
    assert np.allclose(one_way.sum(axis=1), 1, atol=1e-12)
    refitted = fit_blend(turned, chosen_recipe).blender.predict(turned.predictions, turned.facts)
    np.testing.assert_array_equal(refitted, swap_probabilities(one_way))


def test_learned_is_the_better_pool():
    truth, labels, _ = votes(1500)
    rng = np.random.default_rng(5)
    flat = np.stack([sharpened(clip_to_simplex(truth + rng.normal(0, 0.02, truth.shape)), 0.4) for _ in range(2)])
    assert fit_blend(training(flat, labels), recipe("learned", "none")).blender.pool == "log"
    # Voters who trust one of two models each: their votes are drawn from the mean.
    both = rng.dirichlet([0.3, 0.3, 0.3], size=(2, 1500))
    both = np.stack([clip_to_simplex(each) for each in both])
    assert fit_blend(training(both, draw(both.mean(axis=0), rng)), recipe("learned", "none")).blender.pool == "linear"


def test_two_views_of_the_truth_are_better_together():
    truth, labels, _ = votes(1500, seed=2)
    rng = np.random.default_rng(5)
    views = np.stack([clip_to_simplex(truth + rng.normal(0, 0.15, truth.shape)) for _ in range(2)])
    for name in ("learned", "greedy"):
        pooled = log_loss(predict_nested(training(views, labels), recipe(name, "none")).blend, labels)
        assert pooled < min(log_loss(view, labels) for view in views) - 0.01


def test_noise_gets_no_weight_and_a_mis_scaled_model_its_best():
    truth, labels = demo_votes(2000, seed=5)
    rng = np.random.default_rng(0)
    noisy = clip_to_simplex(np.abs(truth + rng.normal(0, 0.05, truth.shape)))
    noise = rng.dirichlet([1, 1, 1], size=len(labels))
    fitted = fit_blend(training(np.stack([noisy, sharpened(truth, 2.5), noise]), labels), recipe("learned")).blender
    assert fitted.weights[2] < 0.02 * sum(fitted.weights)
    alone = training(sharpened(truth, 2.5)[None], labels)
    assert fit_blend(alone, recipe("linear")).blender.calibration.method == "temperature"
    assert log_loss(predict_nested(alone, recipe("linear")).blend, labels) < log_loss(truth, labels) + 0.003


@pytest.mark.parametrize(("prompts", "methods"), [(19, {"none", "temperature"}), (500, {"vector", "isotonic"})])
def test_few_prompts_choose_no_calibration_of_several_parameters(prompts, methods):
    """Votes whose ties are far rarer than predicted: a vector calibration mends that, where prompts can show it."""
    truth, labels, _ = votes(2000)
    shifted = clip_to_simplex(truth * [1.0, 1.0, 6.0] / (truth * [1.0, 1.0, 6.0]).sum(axis=1, keepdims=True))
    data = training(shifted[None], labels)
    groups = np.arange(2000) % prompts
    data = dataclasses.replace(data, votes=dataclasses.replace(data.votes, groups=groups, folds=groups % 10))
    assert fit_blend(data, recipe("linear")).blender.calibration.method in methods


def test_a_calibration_that_is_asked_for_is_used():
    truth, labels, _ = votes(800)
    data = training(truth[None], labels)
    methods = {name: fit_blend(data, recipe("linear", name)).blender.calibration.method for name in ("none", "vector")}
    assert methods == {"none": "none", "vector": "vector"}


def test_fallbacks_reach_predictions_and_only_theirs():
    _, labels, predictions = votes(600)
    data = training(predictions, labels, degenerate=400)
    labels = np.where(data.facts.cases == IDENTICAL, 2, labels).astype(np.int8)
    fitted = fit_blend(relabeled(data, labels), recipe("linear", "none"))
    assert fitted.blender.fallbacks.keys() >= {"identical"}
    blended = fitted.blender.predict(data.predictions, data.facts)
    assert len(np.unique(blended[data.facts.cases == IDENTICAL], axis=0)) == 1
    assert blended[data.facts.cases == IDENTICAL][0, 2] > 0.8
    bare = dataclasses.replace(fitted.blender, fallbacks={}).predict(data.predictions, data.facts)
    assert (blended[data.facts.cases == 0] == bare[data.facts.cases == 0]).all()
    one = dataclasses.replace(fitted.blender, fallbacks={"empty_b": (0.7, 0.1, 0.2)})
    by_one = one.predict(data.predictions, data.facts)
    assert (by_one[data.facts.cases == EMPTY_B] == [0.7, 0.1, 0.2]).all()
    assert (by_one[data.facts.cases != EMPTY_B] == bare[data.facts.cases != EMPTY_B]).all()


def test_the_preset_stays_as_published():
    _, labels, predictions = votes(400)
    blender = fit_blend(training(sharpened(predictions.reshape(-1, 3), 3).reshape(3, -1, 3), labels, degenerate=200),
                  recipe("preset")).blender  # fmt: skip
    assert blender.weights == (0.75, 0.0, 0.25)
    assert (blender.calibration.method, blender.fallbacks, blender.length_coefficient) == ("none", {}, None)


def test_length_is_taken_out_of_ordinary_records_only():
    _, labels, predictions = votes(600)
    data = training(predictions, labels, degenerate=100)
    blender = fit_blend(data, recipe("linear", "none", length_debias=True)).blender
    assert blender.length_coefficient is not None
    with_length = dataclasses.replace(blender, length_coefficient=None)
    strong = dataclasses.replace(blender, length_coefficient=2.0)
    changed = strong.predict(data.predictions, data.facts) != with_length.predict(data.predictions, data.facts)
    assert changed[data.facts.cases == 0].any(axis=1).all()
    assert not changed[data.facts.cases != 0].any()


@pytest.mark.parametrize("calibration", ["none", "temperature", "vector", "isotonic"])
def test_a_blender_read_from_json_gives_the_same_numbers(calibration):
    _, labels, predictions = votes(600)
    predictions[1, 300:330] = np.nan
    data = training(predictions, labels, degenerate=300)
    labels = np.where(data.facts.cases == IDENTICAL, 2, labels).astype(np.int8)
    blender = fit_blend(relabeled(data, labels), recipe("learned", calibration, length_debias=True)).blender
    assert blender.fallbacks
    read = Blender.from_json(json.loads(json.dumps(blender.to_json())))
    assert read == blender
    arguments = (data.predictions, data.facts)
    assert (read.predict(*arguments) == blender.predict(*arguments)).all()
    # One record alone is predicted as it is among others.
    alone = read.predict(predictions[:, 310:311], data.facts.take(np.arange(310, 311)))
    assert np.allclose(alone, blender.predict(*arguments)[310:311], atol=1e-12)


def test_a_model_that_carries_the_blend_is_missed():
    _, labels, predictions = votes(500)
    data = training(predictions, labels)
    whole = log_loss(predict_nested(data, recipe("learned")).blend, labels)
    without = {name: log_loss(predict_nested_without(data, recipe("learned"), name), labels) for name in data.models}
    assert without["m0"] > whole + 0.02
    assert abs(without["m2"] - whole) < 0.005


def test_what_only_the_left_out_model_predicts_gets_the_class_prior():
    _, labels, predictions = votes(300)
    predictions[1:, :20] = np.nan
    data = training(predictions, labels)
    prior = class_prior_baseline(data.votes)
    blended = predict_nested_without(data, recipe("linear"), "m0")
    assert (blended[:20] == prior[:20]).all()
    assert (blended[20:] != prior[20:]).all()
    assert (predict_nested_without(data.only(("m0",)), recipe("linear"), "m0") == prior).all()
    only_named = BlendRecipe("preset", "none", preset={"m0": 1.0})
    assert (predict_nested_without(data, only_named, "m0") == prior).all()


@pytest.mark.parametrize("folds", [2, 3, 5, 10, 37])
def test_parts_keep_prompts_whole_and_are_enough_to_nest(folds):
    rng = np.random.default_rng(folds)
    fold_of_group = rng.permutation(np.arange(700) % folds).astype(np.int16)
    groups = rng.integers(0, 700, 2000)
    parts = nested_parts(fold_of_group[groups], groups)
    assert 5 <= len(np.unique(parts)) <= 10
    for group in range(700):
        assert len(np.unique(parts[groups == group])) <= 1
    many = rng.integers(0, 700, 12_000)
    assert 5 <= len(np.unique(nested_parts(fold_of_group[many], many))) <= 6
