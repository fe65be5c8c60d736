import dataclasses
import json

import numpy as np
import pytest

from infer.ensemble.calibration import (
    CALIBRATION_METHODS,
    Calibration,
    MethodScore,
    choose_method,
    compare_methods,
    cross_calibrate,
    fit_calibration,
)
from metrics.scores import log_loss, record_log_loss
from tests.helpers.blend_votes import demo_votes, draw, on, sharpened, votes
from votes.swap import swap_labels, swap_probabilities

PARTS = (np.arange(2000) % 10).astype(np.int16)


@pytest.mark.parametrize("power", [0.4, 2.5])
def test_a_mis_scaled_predictor_comes_within_0_003_of_its_best(power):
    truth, labels = demo_votes(2000, seed=3)
    wrong = sharpened(truth, power)
    best = log_loss(truth, labels)
    assert log_loss(wrong, labels) > best + 0.03
    for method in ("temperature", "vector"):
        assert log_loss(cross_calibrate(method, wrong, on(labels)), labels) < best + 0.003


def test_each_method_fixes_what_simpler_ones_cannot():
    truth, labels, _ = votes(2000)
    no_ties = truth * [1, 1, 0.3]
    no_ties /= no_ties.sum(axis=1, keepdims=True)
    losses = {m: log_loss(cross_calibrate(m, no_ties, on(labels)), labels) for m in CALIBRATION_METHODS}
    assert losses["vector"] < losses["temperature"] - 0.01
    assert losses["vector"] < log_loss(truth, labels) + 0.005
    # Probabilities that are right in order, but bent, are isotonic regression's own.
    rng = np.random.default_rng(1)
    steps = 0.1 + 0.8 * (rng.random(4000) > 0.5)
    pairs = np.stack([steps * 0.9, (1 - steps) * 0.9, np.full(4000, 0.1)], axis=1)
    bent = np.where(pairs > 0.5, 0.34 + 0.02 * rng.random((4000, 3)), 0.33 - 0.02 * rng.random((4000, 3)))
    bent[:, 2] = 0.1
    bent /= bent.sum(axis=1, keepdims=True)
    votes_of = draw(pairs, rng)
    assert log_loss(cross_calibrate("isotonic", bent, on(votes_of)), votes_of) < log_loss(pairs, votes_of) + 0.01


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_calibrated_probabilities_are_open_equivariant_and_survive_json(method):
    _, labels, predictions = votes(600)
    raw = predictions[1].copy()
    raw[:3] = np.eye(3) * (1 - 3e-7) + 1e-7  # as pools give certainties
    fitted = fit_calibration(method, raw, on(labels))
    calibrated = fitted.apply(raw)
    assert ((calibrated > 0) & (calibrated < 1)).all()
    assert np.allclose(calibrated.sum(axis=1), 1, atol=1e-12)
    swapped = fit_calibration(method, swap_probabilities(raw), on(swap_labels(labels)))
    assert np.allclose(swapped.apply(swap_probabilities(raw)), swap_probabilities(calibrated), atol=1e-6)
    assert np.allclose(fitted.apply(swap_probabilities(raw)), swap_probabilities(calibrated), atol=1e-12)
    read = Calibration.from_json(json.loads(json.dumps(dataclasses.asdict(fitted))))
    assert read == fitted


def test_scaling_keeps_the_order_of_predictions_whatever_the_votes():
    _, labels, predictions = votes(300)
    against = ((labels + 1) % 3).astype(np.int8)
    fitted = fit_calibration("temperature", predictions[0], on(against))
    assert fitted.power_answer >= 0
    calibrated = fitted.apply(predictions[0])
    order = np.argsort(predictions[0][:, 0] / predictions[0][:, 1])
    assert (np.diff(np.log(calibrated[order, 0] / calibrated[order, 1])) >= -1e-9).all()
    assert ((calibrated[:, 0] - calibrated[:, 1]) * (predictions[0][:, 0] - predictions[0][:, 1]) >= -1e-12).all()


def test_cross_calibration_never_saw_its_own_part():
    _, labels, predictions = votes(2000)
    changed = labels.copy()
    changed[PARTS == 4] = (changed[PARTS == 4] + 1) % 3
    for method in CALIBRATION_METHODS[1:]:
        before, after = (cross_calibrate(method, predictions[1], on(these)) for these in (labels, changed))
        assert (before[PARTS == 4] == after[PARTS == 4]).all()
        assert (before[PARTS != 4] != after[PARTS != 4]).any()


def test_the_simplest_within_one_standard_error_of_the_best_is_chosen():
    truth, labels, _ = votes(2000)

    def chosen(predictions):
        return choose_method(
            compare_methods(
                {m: record_log_loss(cross_calibrate(m, predictions, on(labels)), labels) for m in CALIBRATION_METHODS},
                on(labels),
            )
        )

    assert chosen(truth) == "none"
    assert chosen(sharpened(truth, 2.0)) == "temperature"
    no_ties = truth * [1, 1, 0.3]
    assert chosen(no_ties / no_ties.sum(axis=1, keepdims=True)) == "vector"


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.01, 1.005, 1.02, 1.0), "none"),
        ((1.03, 1.005, 1.0, 1.001), "temperature"),
        ((1.03, 1.02, 1.0, 1.001), "vector"),
        ((1.03, 1.02, 1.02, 1.0), "isotonic"),
    ],
)
def test_what_is_within_a_standard_error_of_the_best_gives_way_to_simplicity(losses, expected):
    scores = {method: MethodScore(loss, 0.012) for method, loss in zip(CALIBRATION_METHODS, losses, strict=True)}
    assert choose_method(dict(reversed(scores.items()))) == expected


def test_standard_errors_are_those_of_differences():
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=500)
    scores = compare_methods({"none": losses + 0.01, "temperature": losses}, on(np.zeros(500, np.int8)))
    assert scores["temperature"].standard_error == 0
    assert scores["none"].standard_error < 1e-12
    assert choose_method(scores) == "temperature"
