"""Judges as models: evidence and calibration, exact under exchange of the answers."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from infer.ensemble.blender import Blender
from infer.ensemble.fit import BlendRecipe, fit_blend, predict_nested, predict_nested_without
from infer.ensemble.record_facts import RecordFacts
from infer.judges.calibration import JudgeCalibration, fit_calibration_of_judge
from infer.judges.models import out_of_fold
from metrics.scores import log_loss
from tests.helpers.blend_votes import single_votes, training, votes
from votes.swap import swap_labels, swap_probabilities
from votes.verdicts.evidence import Scale, evidence_by_judge, judge_evidence, panel_evidence
from votes.verdicts.join import VERDICTS

SIDES = {1: [1.0, 0.0, 0.0, 0.0], -1: [0.0, 1.0, 0.0, 0.0], 0: [0.0, 0.0, 1.0, 0.0]}


def table(rows):
    return pa.Table.from_pylist([{"split": "train", "judge": "g", **row} for row in rows], VERDICTS)


def drawn(records=600, classes=3, seed=0, both_orders=True):
    """Votes, and verdicts of a judge that is often right and prefers what it sees first."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, records).astype(np.int8)
    rows = []
    for record in range(records):
        for order in ("ab", "ba") if both_orders else ("ab",):
            truth = {0: 1, 1: -1, 2: 0}[int(labels[record])]
            first = 1 if order == "ab" else -1
            said = truth if rng.random() < 0.6 else first if rng.random() < 0.7 else -first
            rows.append({"record": record, "order": order, "shares": SIDES[said]})
    number = np.arange(records)
    return single_votes(labels, (number % 5).astype(np.int16), number, classes), table(rows)


def exchanged(verdicts):
    rows = []
    for row in verdicts.to_pylist():
        shares = row["shares"]
        turned = None if shares is None else [shares[1], shares[0], *shares[2:]]
        order = {"ab": "ba", "ba": "ab", None: None}[row["order"]]
        scores = {"score_a": row["score_b"], "score_b": row["score_a"]}
        rows.append({**row, "shares": turned, "order": order, **scores})
    return pa.Table.from_pylist(rows, VERDICTS)


@pytest.mark.parametrize("classes", [2, 3])
def test_exchange_of_the_answers_exchanges_predictions_to_the_bit(classes):
    of_votes, verdicts = drawn(classes=classes)
    turned_votes = dataclasses.replace(of_votes, labels=swap_labels(of_votes.labels))
    scale = Scale.of(verdicts)
    assert Scale.of(exchanged(verdicts)) == scale
    predicted = [
        out_of_fold(judge_evidence(given, len(own), scale), own, own.folds)
        for given, own in ((verdicts, of_votes), (exchanged(verdicts), turned_votes))
    ]
    assert (predicted[0] == swap_probabilities(predicted[1])).all()
    assert predicted[0].std() > 0.05


@pytest.mark.parametrize("classes", [2, 3])
def test_a_saved_calibration_predicts_the_same(classes):
    of_votes, verdicts = drawn(classes=classes)
    evidence = judge_evidence(verdicts, len(of_votes), Scale.of(verdicts))
    calibration = fit_calibration_of_judge(evidence, of_votes)
    saved = JudgeCalibration.from_json(json.loads(json.dumps(calibration.to_json())))
    assert (saved.predict(evidence) == calibration.predict(evidence)).all()


def test_evidence_changes_its_sign_or_stays_when_the_answers_change_places():
    of_votes, verdicts = drawn(records=80)
    scores = [{"record": n, "order": "ba", "judge": "h", "score_a": float(n % 7), "score_b": 3.0} for n in range(60)]
    both = pa.concat_tables([verdicts, table(scores)])
    scales = {"g": Scale(), "h": Scale(2.0, True)}
    one, other = (evidence_by_judge(given, len(of_votes), scales) for given in (both, exchanged(both)))
    panels = (panel_evidence([*by_judge.values()]) for by_judge in (one, other))
    for here, there in ((one["g"], other["g"]), (one["h"], other["h"]), tuple(panels)):
        np.testing.assert_array_equal(here.antisymmetric, -there.antisymmetric)
        np.testing.assert_array_equal(here.symmetric, there.symmetric)
        assert here.antisymmetric.any(axis=0).sum() > 2


def test_a_position_bias_is_learned_and_helps():
    of_votes, verdicts = drawn()
    with_orders = out_of_fold(judge_evidence(verdicts, len(of_votes), Scale()), of_votes, of_votes.folds)
    blind = verdicts.filter(pa.compute.equal(verdicts["order"], "ab"))
    blind = blind.set_column(3, "order", pa.nulls(len(blind), pa.string()))
    one_order = out_of_fold(judge_evidence(blind, len(of_votes), Scale()), of_votes, of_votes.folds)
    losses = [log_loss(values, of_votes.labels) for values in (with_orders, one_order)]
    assert losses[0] < losses[1] - 0.1
    assert losses[1] < np.log(3) - 0.05


def test_a_judge_that_is_mostly_wrong_is_worth_its_evidence():
    of_votes, verdicts = drawn(classes=2, both_orders=False)
    wrong = exchanged(verdicts).set_column(3, "order", verdicts["order"])
    right, turned = (
        log_loss(out_of_fold(judge_evidence(given, len(of_votes), Scale()), of_votes, of_votes.folds), of_votes.labels)
        for given in (verdicts, wrong)
    )
    assert turned < np.log(2) - 0.05
    assert abs(right - turned) < 0.1


def test_scores_have_a_learned_tie_band():
    rng = np.random.default_rng(0)
    gap = rng.normal(size=900)
    labels = np.where(np.abs(gap) < 0.5, 2, np.where(gap > 0, 0, 1)).astype(np.int8)
    own = single_votes(labels, (np.arange(900) % 5).astype(np.int16), np.arange(900))
    scores = [{"record": n, "score_a": 5 + 3 * float(value), "score_b": 5.0} for n, value in enumerate(gap)]
    verdicts = table(scores)
    scale = Scale.of(verdicts)
    assert scale.is_graded
    assert scale.score == pytest.approx(3 * np.sqrt((gap**2).mean()))
    predicted = out_of_fold(judge_evidence(verdicts, 900, scale), own, own.folds)
    assert predicted[np.abs(gap) < 0.1, 2].mean() > 0.6
    assert predicted[gap > 1.5, 0].mean() > 0.8


def test_ties_and_both_bad_are_told_apart_and_probabilities_have_their_ties():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800).astype(np.int8)
    own = single_votes(labels, (np.arange(800) % 5).astype(np.int16), np.arange(800), 4)
    said = np.where(rng.random(800) < 0.8, labels, rng.integers(0, 4, 800))
    verdicts = table([{"record": n, "shares": np.eye(4)[outcome].tolist()} for n, outcome in enumerate(said)])
    assert not Scale.of(verdicts).is_graded
    predicted = out_of_fold(judge_evidence(verdicts, 800, Scale()), own, own.folds)
    for outcome in range(4):
        assert predicted[said == outcome, outcome].mean() > 0.7
    soft = table([{"record": 0, "shares": [0.3, 0.2, 0.5, 0.0]}, {"record": 1, "shares": [0.1, 0.0, 0.9, 0.0]}])
    assert Scale.of(soft).is_graded
    assert judge_evidence(soft, 2, Scale.of(soft)).symmetric[:, 0].tolist() == [0.5, 0.9]


def test_records_without_a_verdict_have_no_prediction_and_are_not_fitted():
    of_votes, verdicts = drawn(records=100)
    fewer = verdicts.filter(pa.compute.less(verdicts["record"], 60))
    evidence = judge_evidence(fewer, 100, Scale())
    assert evidence.present.sum() == 60
    predicted = out_of_fold(evidence, of_votes, of_votes.folds)
    assert np.isnan(predicted[60:]).all()
    alone = judge_evidence(fewer, 60, Scale())
    same = out_of_fold(alone, of_votes.take(np.arange(60)), of_votes.folds[:60])
    np.testing.assert_array_equal(predicted[:60], same)


def test_the_optimum_is_one_of_the_penalized_loss():
    of_votes, verdicts = drawn(records=200)
    evidence = judge_evidence(verdicts, 200, Scale())
    best = fit_calibration_of_judge(evidence, of_votes)

    def loss(model):
        penalty = 1.5 * ((model.sides**2).sum() + (model.others**2).sum())
        return -np.log(model.predict(evidence)[np.arange(200), of_votes.labels]).sum() + penalty

    for name in ("sides", "levels", "others"):
        for step in (-0.01, 0.01):
            moved = dataclasses.replace(best, **{name: getattr(best, name) + step})
            assert loss(moved) >= loss(best) - 1e-6
    saved = JudgeCalibration.from_json(best.to_json())
    np.testing.assert_array_equal(saved.predict(evidence), best.predict(evidence))


def test_a_panel_beats_its_judges_and_lives_with_missing_ones():
    of_votes, one = drawn(seed=1)
    _, two = drawn(seed=1, both_orders=False)
    two = two.set_column(2, "judge", pa.array(["h"] * len(two)))
    two = two.filter(pa.compute.less(two["record"], 300))
    by_judge = evidence_by_judge(pa.concat_tables([one, two]), len(of_votes), {"g": Scale(), "h": Scale()})
    panel = panel_evidence(list(by_judge.values()))
    assert panel.present.all()
    predicted = out_of_fold(panel, of_votes, of_votes.folds)
    assert not np.isnan(predicted).any()
    alone = out_of_fold(by_judge["g"], of_votes, of_votes.folds)
    assert log_loss(predicted, of_votes.labels) < log_loss(alone, of_votes.labels) + 0.01


def test_a_missing_verdict_is_no_evidence():
    """Its weight must not go to the judges that are there."""
    predictions = np.array([[[0.6, 0.3, 0.1]], [[0.9, 0.05, 0.05]], [[np.nan] * 3], [[np.nan] * 3]])
    models = ("text", "one", "two", "three")
    blender = Blender(models, "log", (0.5, 1.0, 2.0, 3.0), judges=models[1:])
    facts = RecordFacts(np.zeros(1, np.int8), np.zeros(1))
    logs = np.log(predictions[0, 0]) * 0.5 + np.log(predictions[1, 0])
    expected = np.exp(logs) / np.exp(logs).sum()
    np.testing.assert_allclose(blender.predict(predictions, facts)[0], expected, atol=1e-6)


def test_a_judge_of_few_records_does_not_decide_the_weights_of_others():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 1000).astype(np.int8)
    good = np.where(np.eye(3)[labels] > 0, 0.6, 0.2)
    judge = np.full((1000, 3), np.nan)
    judge[:8] = np.where(np.eye(3)[labels[:8]] > 0, 0.9, 0.05)
    given = training(np.stack([good, judge]), labels)
    given = dataclasses.replace(given, judges=("m1",))
    blender = fit_blend(given, BlendRecipe("log")).blender
    chance = rng.dirichlet([1, 1, 1], 1000)  # on new pairs the judge knows nothing
    blended = blender.predict(np.stack([good, chance]), given.facts)
    assert log_loss(blended, labels) < np.log(3) - 0.2


def test_a_model_that_lacks_records_beside_a_judge_is_left_out_of_them():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600).astype(np.int8)
    text = np.where(np.eye(3)[labels] > 0, 0.5, 0.25)
    judge = np.where(np.eye(3)[labels] > 0, 0.6, 0.2)
    text[:3] = np.nan
    given = dataclasses.replace(training(np.stack([text, judge]), labels), judges=("m1",))
    nested = predict_nested(given, BlendRecipe("log")).blend
    assert np.isfinite(nested).all()
    assert np.isfinite(predict_nested_without(given, BlendRecipe("log"), ("m1",))).all()


def test_records_without_verdicts_get_the_blend_without_judges():
    _, labels, predictions = votes(600)
    judged = np.arange(600) < 400
    predictions[1][~judged] = np.nan
    inputs = dataclasses.replace(training(predictions, labels), judges=("m1",))
    blender = fit_blend(inputs, BlendRecipe()).blender
    assert blender.judges == ("m1",)
    assert blender.without_judges is not None
    assert blender.without_judges.models == ("m0", "m2")
    blended = blender.predict(inputs.predictions, inputs.facts)
    alone = blender.without_judges.predict(inputs.predictions[[0, 2]], inputs.facts)
    np.testing.assert_array_equal(blended[~judged], alone[~judged])
    assert (blended[judged] != alone[judged]).any()
    assert type(blender).from_json(blender.to_json()) == blender


def test_the_gain_of_a_judge_is_counted_without_it_in_the_panel():
    _, labels, predictions = votes(400)
    weak = np.full_like(predictions[0], 1 / 3)
    inputs = training(np.stack([predictions[2], predictions[0]]), labels)
    inputs = dataclasses.replace(inputs, models=("judge", "panel"), judges=("judge", "panel"), panels={"judge": weak})
    with_it = log_loss(predict_nested(inputs, BlendRecipe()).blend, labels)
    without = log_loss(predict_nested_without(inputs, BlendRecipe(), ("judge",)), labels)
    assert without > with_it + 0.05
