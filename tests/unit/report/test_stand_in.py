"""Where a judge may stand in for a person: differences with intervals for all slices together."""

import numpy as np
import pytest

from metrics.voters import SharedVotes
from report.sections.judges.raters import Rater
from report.sections.judges.stand_in import ALL, compare_with_people

RECORDS, VOTERS = 120, 3


def shared_votes(rng):
    """Votes of three people, two of whom mostly see the same."""
    truth = rng.integers(0, 3, RECORDS)
    labels = np.where(rng.random((RECORDS, VOTERS)) < 0.7, truth[:, None], rng.integers(0, 3, (RECORDS, VOTERS)))
    record = np.repeat(np.arange(RECORDS), VOTERS)
    groups = record % 60
    voters = np.tile(np.arange(VOTERS), RECORDS)
    shared, _ = SharedVotes.of(record, labels.ravel().astype(np.int8), groups % 5, groups, voters, 3)
    return truth, labels, shared


def compare(verdicts, shared, parts=None):
    rater = Rater("j", "judge", [verdicts], None)
    masks = {ALL: np.ones(len(shared.labels), bool), **(parts or {})}
    return {(row["by"], row["slice"]): row for row in compare_with_people(rater, shared, masks)}


def test_the_difference_is_that_of_agreement_with_each_vote():
    truth, labels, shared = shared_votes(np.random.default_rng(0))
    row = compare(np.eye(3)[truth], shared)[ALL]
    by_hand = [
        (truth[n] == labels[n, voter]) - np.mean([labels[n, voter] == labels[n, other] for other in others])
        for n in range(RECORDS)
        for voter in range(VOTERS)
        for others in [[other for other in range(VOTERS) if other != voter]]
    ]
    assert row["difference"] == pytest.approx(np.mean(by_hand), abs=1e-12)
    assert row["votes"] == RECORDS * VOTERS
    assert row["verdict"] == "at least as good"


def test_intervals_are_wider_for_more_slices_and_small_slices_are_left_out():
    truth, _, shared = shared_votes(np.random.default_rng(1))
    alone = compare(np.eye(3)[truth], shared)[ALL]["difference_ci95"]
    parts = {("half", str(n)): shared.records % 2 == n for n in range(2)}
    few = {("few", "prompts"): shared.groups < 19}
    together = compare(np.eye(3)[truth], shared, {**parts, **few})
    assert set(together) == {ALL, *parts}
    low, high = together[ALL]["difference_ci95"]
    assert low < alone[0] < alone[1] < high
    assert sum(together[part]["votes"] for part in parts) == len(shared.labels)


def test_a_random_judge_is_worse_than_one_more_person_and_a_person_is_not():
    rng = np.random.default_rng(2)
    _, labels, shared = shared_votes(rng)
    assert compare(np.eye(3)[rng.integers(0, 3, RECORDS)], shared)[ALL]["verdict"] == "worse"
    verdicts = np.full((RECORDS, 3), np.nan)
    assert compare(verdicts, shared) == {}
    verdicts[:60] = np.eye(3)[labels[:60, 0]]
    assert compare(verdicts, shared)[ALL]["votes"] == 60 * VOTERS
