import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize

from core.errors import InputError
from metrics.scores import log_loss
from tests.helpers.boosters import make_recipe, small_data
from train.boosters.data import TrainingRows
from train.boosters.engines import linear
from train.boosters.engines.linear import SwapColumns, TwoPartModel
from votes.swap import swap_probabilities

PARAMS = {"c_anti": 0.5, "c_tie": 0.5, "clip": 3.0}


def fitted(data, fold=0, weights=None, **params):
    rest = data.training_rows(fold)
    columns = SwapColumns.from_exchange(data.permutation, data.signs)
    dense = linear._dense(data.features)
    rows = TrainingRows(data.features.rows(rest), data.labels[rest], weights)
    return TwoPartModel.fit(rows, data.classes, columns, PARAMS | params), dense


@pytest.mark.parametrize("sparse", [False, True])
def test_exchanging_answers_exchanges_probabilities_exactly(sparse):
    data = small_data(sparse)
    model, dense = fitted(data)
    swapped = linear._dense(data.swapped(data.features))
    predicted = model.predict(dense)
    np.testing.assert_array_equal(model.predict(swapped), swap_probabilities(predicted))
    assert np.abs(predicted.sum(axis=1) - 1).max() < 1e-12


def test_it_learns_who_wins_and_when_it_is_a_tie():
    data = small_data()
    model, dense = fitted(data)
    held_out = data.held_out(0)
    predicted = model.predict(dense[held_out])
    labels = data.labels[held_out]
    prior = np.bincount(data.labels, minlength=3) / len(data.labels)
    assert log_loss(predicted, labels) < log_loss(np.tile(prior, (len(labels), 1)), labels) - 0.2
    decides = dense[held_out][:, data.names.index("difference_0")]
    ties = predicted[:, 2]
    assert ties[np.abs(decides) < 0.3].mean() > ties[np.abs(decides) > 1].mean() + 0.1


def test_who_wins_is_the_penalized_optimum():
    """The part for A against B, written out as an optimisation and solved by another method."""
    data = small_data()
    model, dense = fitted(data)
    rest = data.training_rows(0)
    x = dense[rest][:, 8:].astype(float)
    x = np.clip(x / np.sqrt((x**2).mean(axis=0)), -3, 3)[data.labels[rest] < 2]
    sign = np.where(data.labels[rest][data.labels[rest] < 2] == 0, 1, -1)

    def loss(w):
        return np.log1p(np.exp(-sign * (x @ w))).sum() + (w**2).sum() / (2 * PARAMS["c_anti"])

    optimum = minimize(loss, np.zeros(4), method="BFGS").x
    assert np.abs(optimum - model.odd_weights).max() < 1e-3


def test_a_weight_counts_like_copies():
    data = small_data()
    rest = data.training_rows(0)
    columns = SwapColumns.from_exchange(data.permutation, data.signs)
    twice = np.where(np.arange(len(rest)) % 3 == 0, 2, 1)
    rows = TrainingRows(data.features.rows(rest), data.labels[rest], twice.astype(np.float32))
    weighed = TwoPartModel.fit(rows, 3, columns, PARAMS)
    copies = np.repeat(rest, twice)
    rows = TrainingRows(data.features.rows(copies), data.labels[copies], None)
    copied = TwoPartModel.fit(rows, 3, columns, PARAMS)
    predicted = [model.predict(data.features.dense) for model in (weighed, copied)]
    assert np.abs(predicted[0] - predicted[1]).max() < 1e-3


def test_the_saved_model_predicts_the_same_numbers():
    model, dense = fitted(small_data())
    again = TwoPartModel.from_bytes(model.to_bytes())
    assert (again.predict(dense) == model.predict(dense)).all()


def test_importances_name_the_column_that_decides_and_constant_columns_say_nothing():
    data = small_data()
    data.features.dense[:, data.names.index("difference_3")] = 0
    model, dense = fitted(data)
    weight, share = model.importance(dense)
    decides = data.names.index("difference_0")
    assert weight.argmax() == share.argmax() == decides
    assert share[data.names.index("difference_3")] == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"params": {"c_antii": 1.0}}, "did you mean 'c_anti'"),
        ({"params": {"c_tie": -1.0}}, "not a number above 0"),
        ({"params": {"c_tie": True}}, "not a number above 0"),
        ({"num_workers": 2}, "one process"),
    ],
)
def test_bad_parameters_are_named(settings, says):
    with pytest.raises(InputError, match=says):
        make_recipe("linear", **settings)


def test_features_that_do_not_tell_a_from_b_are_refused():
    data = small_data()
    same = dataclasses.replace(data, signs=np.abs(data.signs))
    linear.LinearEngine().try_parameters(data, make_recipe("linear"))
    with pytest.raises(InputError, match="all features are the same for A and B") as caught:
        linear.LinearEngine().try_parameters(same, make_recipe("linear"))
    assert caught.value.where == "boosters.small.features"


def test_absurd_features_give_probabilities():
    model, dense = fitted(small_data())
    predicted = model.predict(np.full_like(dense[:3], 1e30))
    assert np.isfinite(predicted).all()
    assert np.abs(predicted.sum(axis=1) - 1).max() < 1e-12


@pytest.mark.parametrize("outcomes", [(0, 1), (0,), (2,)])
def test_votes_without_ties_or_with_one_winner_are_learned_from(outcomes):
    data = small_data()
    labels = np.array(outcomes, np.int8)[np.arange(len(data.labels)) % len(outcomes)]
    if outcomes == (0, 1):
        labels = (data.features.dense[:, data.names.index("difference_0")] < 0).astype(np.int8)
    model, dense = fitted(dataclasses.replace(data, labels=labels))
    predicted = model.predict(dense)
    assert np.isfinite(predicted).all()
    assert predicted.min() > 0
    records = len(data.training_rows(0))
    ties = (records + 1) / (records + 2) if outcomes == (2,) else 1 / (records + 2)
    np.testing.assert_allclose(predicted[:, 2], ties)
    if outcomes == (0, 1):
        assert (predicted[:, :2].argmax(axis=1) == labels).mean() > 0.9
    else:
        np.testing.assert_allclose(predicted[:, 0], predicted[:, 1])
