import dataclasses

import numpy as np
import pytest

from infer.ensemble.fallbacks import (
    BOTH_EMPTY,
    DEGENERATE_CASES,
    EMPTY_A,
    EMPTY_B,
    IDENTICAL,
    PRIOR_VOTES,
    degenerate_case,
    fit_fallbacks,
)
from tests.helpers.blend_votes import draw, single_votes
from votes.swap import swap_labels, swap_probabilities

SHARES = {EMPTY_A: [0.05, 0.85, 0.1], BOTH_EMPTY: [0.1, 0.1, 0.8], IDENTICAL: [0.2, 0.2, 0.6]}


def records(counts, seed=0):
    """Random predictions, votes drawn from SHARES, and cases, for a number of records of each case."""
    rng = np.random.default_rng(seed)
    cases = np.concatenate([np.full(count, code, np.int8) for code, count in counts.items()])
    shares = {0: [1 / 3] * 3, EMPTY_B: [0.85, 0.05, 0.1], **SHARES}
    labels = draw(np.array([shares[code] for code in cases.tolist()]), rng)
    predictions = rng.dirichlet([30, 20, 10], size=len(cases))
    number = np.arange(len(cases))
    return predictions, single_votes(labels, (number % 5).astype(np.int16), number), cases


def by_case(fallbacks):
    assert [fallback.case for fallback in fallbacks] == list(DEGENERATE_CASES[1:])
    return {fallback.case: fallback for fallback in fallbacks}


def test_cases_of_answers():
    pairs = [("x", "y"), ("", "y"), ("x", ""), ("", ""), ("x", "x")]
    assert [DEGENERATE_CASES[degenerate_case(a, b)] for a, b in pairs] == list(DEGENERATE_CASES)


def test_many_records_speak_for_themselves():
    fallbacks = by_case(fit_fallbacks(*records({0: 500, EMPTY_A: 400, EMPTY_B: 200, BOTH_EMPTY: 400, IDENTICAL: 400})))
    for code, shares in SHARES.items():
        fallback = fallbacks[DEGENERATE_CASES[code]]
        assert fallback.applied
        assert "helps" in fallback.reason
        assert np.allclose(fallback.vote_shares, shares, atol=0.06)
        assert np.allclose(fallback.probabilities, fallback.vote_shares, atol=0.02)
        assert np.isclose(sum(fallback.probabilities), 1)
    assert (fallbacks["empty_a"].records, fallbacks["empty_b"].records) == (400, 200)


def test_few_records_hardly_move_the_prior():
    predictions, votes, cases = records({0: 500, EMPTY_A: 3, IDENTICAL: 1})
    fallbacks = by_case(fit_fallbacks(predictions, votes, cases))
    for code, count in ((EMPTY_A, 3), (IDENTICAL, 1)):
        fallback = fallbacks[DEGENERATE_CASES[code]]
        assert not fallback.applied
        assert "at least 5 are needed" in fallback.reason
        shares, prior, shrunken = (
            np.array(each) for each in (fallback.vote_shares, fallback.prior, fallback.probabilities)
        )
        assert np.allclose(shrunken - prior, (shares - prior) * count / (count + PRIOR_VOTES))
        assert np.abs(shrunken - prior).max() < 0.25 * np.abs(shares - prior).max()
    assert np.allclose(fallbacks["empty_a"].prior, predictions[cases == EMPTY_A].mean(axis=0))


def test_a_case_without_records_is_left_alone():
    fallback = by_case(fit_fallbacks(*records({0: 100})))["identical"]
    assert not fallback.applied
    assert fallback.records == 0
    assert fallback.reason == "no training record has this case"
    assert fallback.probabilities == pytest.approx(fallback.prior)
    assert fallback.prior[0] == fallback.prior[1]


def test_fallbacks_are_kept_from_a_blend_that_knows_better():
    predictions, votes, cases = records({0: 100, IDENTICAL: 100})
    knowing = 0.9 * np.eye(3)[votes.labels] + 0.1 / 3
    fallback = by_case(fit_fallbacks(knowing, votes, cases))["identical"]
    assert not fallback.applied
    assert "no clear gain" in fallback.reason
    assert by_case(fit_fallbacks(predictions, votes, cases))["identical"].applied


def test_exchanging_a_and_b_exchanges_the_fallbacks():
    predictions, votes, cases = records({0: 100, EMPTY_A: 40, EMPTY_B: 7, BOTH_EMPTY: 30, IDENTICAL: 30})
    turned = np.array([0, EMPTY_B, EMPTY_A, BOTH_EMPTY, IDENTICAL], np.int8)[cases]
    swapped = dataclasses.replace(votes, labels=swap_labels(votes.labels))
    one_way = by_case(fit_fallbacks(predictions, votes, cases))
    other_way = by_case(fit_fallbacks(swap_probabilities(predictions), swapped, turned))
    for case, opposite in (("empty_a", "empty_b"), ("both_empty", "both_empty"), ("identical", "identical")):
        a, b, tie = one_way[case].probabilities
        assert other_way[opposite].probabilities == pytest.approx((b, a, tie), abs=1e-12)
        assert other_way[opposite].records == one_way[case].records
    assert one_way["empty_a"].probabilities[:2] == pytest.approx(one_way["empty_b"].probabilities[1::-1])
    assert one_way["identical"].probabilities[0] == one_way["identical"].probabilities[1]


def test_many_votes_on_one_prompt_are_no_evidence():
    shrunken = records({0: 100, IDENTICAL: 100})
    predictions, votes, cases = shrunken
    one_prompt = dataclasses.replace(votes, groups=np.where(cases == IDENTICAL, 0, votes.groups))
    assert by_case(fit_fallbacks(*shrunken))["identical"].applied
    assert not by_case(fit_fallbacks(predictions, one_prompt, cases))["identical"].applied
