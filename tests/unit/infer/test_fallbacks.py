import numpy as np
import pytest

from infer.ensemble.fallbacks import BOTH_EMPTY, CASES, EMPTY_A, EMPTY_B, IDENTICAL, STRENGTH, case_of, fit_guards
from tests.helpers.blend_votes import draw
from votes.swap import swap_labels, swap_probabilities

SHARES = {EMPTY_A: [0.05, 0.85, 0.1], BOTH_EMPTY: [0.1, 0.1, 0.8], IDENTICAL: [0.2, 0.2, 0.6]}


def records(counts, seed=0):
    """Predictions that know nothing, votes that follow SHARES, codes, parts, prompts: so many records of each case."""
    rng = np.random.default_rng(seed)
    cases = np.concatenate([np.full(count, code, np.int8) for code, count in counts.items()])
    shares = {0: [1 / 3] * 3, EMPTY_B: [0.85, 0.05, 0.1], **SHARES}
    labels = draw(np.array([shares[code] for code in cases.tolist()]), rng)
    predictions = rng.dirichlet([30, 20, 10], size=len(cases))
    number = np.arange(len(cases))
    return predictions, labels, cases, (number % 5).astype(np.int16), number


def by_case(guards):
    assert [guard.case for guard in guards] == list(CASES[1:])
    return {guard.case: guard for guard in guards}


def test_cases_of_answers():
    pairs = [("x", "y"), ("", "y"), ("x", ""), ("", ""), ("x", "x")]
    assert [CASES[case_of(a, b)] for a, b in pairs] == list(CASES)


def test_many_records_speak_for_themselves():
    found = by_case(fit_guards(*records({0: 500, EMPTY_A: 400, EMPTY_B: 200, BOTH_EMPTY: 400, IDENTICAL: 400})))
    for code, shares in SHARES.items():
        guard = found[CASES[code]]
        assert guard.applied
        assert "helps" in guard.reason
        assert np.allclose(guard.vote_shares, shares, atol=0.06)
        assert np.allclose(guard.probabilities, guard.vote_shares, atol=0.02)
        assert np.isclose(sum(guard.probabilities), 1)
    assert (found["empty_a"].records, found["empty_b"].records) == (400, 200)


def test_few_records_hardly_move_the_prior():
    predictions, labels, cases, parts, prompts = records({0: 500, EMPTY_A: 3, IDENTICAL: 1})
    found = by_case(fit_guards(predictions, labels, cases, parts, prompts))
    for code, count in ((EMPTY_A, 3), (IDENTICAL, 1)):
        guard = found[CASES[code]]
        assert not guard.applied
        assert "fewer than 5" in guard.reason
        shares, prior, made = (np.array(each) for each in (guard.vote_shares, guard.prior, guard.probabilities))
        assert np.allclose(made - prior, (shares - prior) * count / (count + STRENGTH))
        assert np.abs(made - prior).max() < 0.25 * np.abs(shares - prior).max()
    assert np.allclose(found["empty_a"].prior, predictions[cases == EMPTY_A].mean(axis=0))


def test_a_case_without_records_is_left_alone():
    guard = by_case(fit_guards(*records({0: 100})))["identical"]
    assert not guard.applied
    assert guard.records == 0
    assert guard.reason == "no training record is like this"
    assert guard.probabilities == pytest.approx(guard.prior)
    assert guard.prior[0] == guard.prior[1]


def test_guards_are_kept_from_a_blend_that_knows_better():
    predictions, labels, cases, parts, prompts = records({0: 100, IDENTICAL: 100})
    knowing = 0.9 * np.eye(3)[labels] + 0.1 / 3
    guard = by_case(fit_guards(knowing, labels, cases, parts, prompts))["identical"]
    assert not guard.applied
    assert "no clear gain" in guard.reason
    assert by_case(fit_guards(predictions, labels, cases, parts, prompts))["identical"].applied


def test_exchanging_a_and_b_exchanges_the_guards():
    predictions, labels, cases, parts, prompts = records(
        {0: 100, EMPTY_A: 40, EMPTY_B: 7, BOTH_EMPTY: 30, IDENTICAL: 30}
    )
    turned = np.array([0, EMPTY_B, EMPTY_A, BOTH_EMPTY, IDENTICAL], np.int8)[cases]
    one_way = by_case(fit_guards(predictions, labels, cases, parts, prompts))
    other_way = by_case(fit_guards(swap_probabilities(predictions), swap_labels(labels), turned, parts, prompts))
    for case, opposite in (("empty_a", "empty_b"), ("both_empty", "both_empty"), ("identical", "identical")):
        a, b, tie = one_way[case].probabilities
        assert other_way[opposite].probabilities == pytest.approx((b, a, tie), abs=1e-12)
        assert other_way[opposite].records == one_way[case].records
    assert one_way["empty_a"].probabilities[:2] == pytest.approx(one_way["empty_b"].probabilities[1::-1])
    assert one_way["identical"].probabilities[0] == one_way["identical"].probabilities[1]


def test_many_votes_on_one_prompt_are_no_evidence():
    made = records({0: 100, IDENTICAL: 100})
    predictions, labels, cases, parts, prompts = made
    one_prompt = np.where(cases == IDENTICAL, 0, prompts)
    assert by_case(fit_guards(*made))["identical"].applied
    assert not by_case(fit_guards(predictions, labels, cases, parts, one_prompt))["identical"].applied
