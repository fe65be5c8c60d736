"""Votes on one pair are joined and weighed; what makes votes hard to learn from is said."""

from typing import Any

import numpy as np
import pytest

from core.errors import InputError
from tests.helpers.ingest import ingest_here
from votes.ingest import _fold_notes, _vote_notes

HEADER = "pair_id,voter,prompt,response_a,response_b,winner,sure"


def votes_file(folder, rows):
    path = folder / "votes.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture
def votes(tmp_path):
    """Three votes on one pair, one of them on the answers in the other order, and one on another pair."""
    rows = [
        "p1,ann,Why?,yes,no,a,1",
        "p1,bob,Why?,no,yes,a,2",  # the other order: bob's winner is "no"
        "p1,cid,Why?,yes,no,tie,0.5",
        "p2,ann,How?,so,thus,b,1",
    ]
    return votes_file(tmp_path, rows)


def counts(table: Any) -> Any:
    return [row["votes"] for row in table.to_pylist()]


def test_votes_on_a_pair_are_joined_whichever_answer_is_first(tmp_path, votes):
    table, metrics = ingest_here(tmp_path, votes)
    assert counts(table) == [[1, 1, 1], [0, 1, 0]]
    assert table["voters"].to_pylist() == [3, 1]
    assert table["training_votes"].to_pylist() == [None, None]
    assert [(b["id"], b["voter"], b["votes"]) for b in metrics["ballots"]] == [
        ("p1", "ann", [1, 0, 0]),
        ("p1", "bob", [0, 1, 0]),
        ("p1", "cid", [0, 0, 1]),
        ("p2", "ann", [0, 1, 0]),
    ]


def test_pairs_or_a_column_can_weigh(tmp_path, votes):
    table, _ = ingest_here(tmp_path / "pair", votes, weights="per_pair")
    np.testing.assert_allclose(counts(table), [[1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]])
    table, _ = ingest_here(tmp_path / "column", votes, weights="column:sure")
    np.testing.assert_allclose(counts(table), np.array([[1, 2, 0.5], [0, 1, 0]]) * 4 / 4.5)  # 1 a vote, as without


def test_a_weight_that_is_none_goes_to_quarantine(tmp_path):
    path = votes_file(
        tmp_path, ["p1,a,Why?,yes,no,a,0", "p2,a,How?,yes,no,a,1", "p3,a,Who?,yes,no,b,x", "p4,a,Eh?,y,n,b,1"]
    )
    table, metrics = ingest_here(tmp_path, path, weights="column:sure")
    assert len(table) == 2
    assert [row["reason"] for row in metrics["rejected"]] == ["the weight sure is not above 0", "sure is not a number"]
    with pytest.raises(InputError, match=r"no column .nowhere"):
        ingest_here(tmp_path, path, weights="column:nowhere")


def test_reliability_weighs_training_votes_alone(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for pair in range(60):
        truth = rng.integers(2)
        for voter, accuracy in (("good", 0.95), ("fair", 0.9), ("sound", 0.9), ("rash", 0.2)):
            vote = truth if rng.random() < accuracy else rng.integers(2)
            rows.append(f"p{pair},{voter},Question {pair}?,yes,no,{'ab'[vote]},1")
    path = votes_file(tmp_path, rows)
    table, metrics = ingest_here(tmp_path / "weighed", path, voters={"model": "reliability"})
    plain, _ = ingest_here(tmp_path / "plain", path)
    assert counts(table) == counts(plain)
    training = np.array(table["training_votes"].to_pylist())
    assert training.sum() == pytest.approx(240)
    weights = {ballot["voter"]: ballot["weight"] for ballot in metrics["ballots"]}
    assert min(weights["good"], weights["fair"], weights["sound"]) > 2 * weights["rash"] > 0
    np.testing.assert_allclose(training.sum(axis=1), sum(weights.values()))


def test_reliability_without_voters_is_refused(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("id,prompt,response_a,response_b,winner\n1,Why?,yes,no,a\n2,How?,yes,no,b\n")
    with pytest.raises(InputError, match="name no voters"):
        ingest_here(tmp_path, path, voters={"model": "reliability"})


def test_one_prompt_cannot_be_divided_and_the_fix_can_work(tmp_path):
    path = votes_file(tmp_path, ["p1,a,Why?,yes,no,a,1", "p2,a,Why?,yes,never,b,1"])
    with pytest.raises(InputError, match="at least two prompts"):
        ingest_here(tmp_path, path)
    path = votes_file(tmp_path, ["p1,a,Why?,yes,no,a,1", "p2,a,How?,yes,never,b,1", "p3,a,Who?,yes,no,b,1"])
    with pytest.raises(InputError, match="at most 3"):
        ingest_here(tmp_path, path, folds=5)


def test_what_is_hard_to_learn_from_is_said():
    assert _vote_notes({"a": 0, "b": 0, "tie": 80}) == ["every vote is tie: there is nothing to learn but that"]
    assert _vote_notes({"a": 297, "b": 2, "tie": 1}) == [
        "too few votes to learn from: 2 for b, 1 for tie; some folds train on even fewer"
    ]
    assert _vote_notes({"a": 20, "b": 20, "tie": 20}) == []
    assert "one prompt has 90%" in _fold_notes([90, 5, 5], {"largest_prompt": 90})[0]
    assert _fold_notes([34, 33, 33], {"largest_prompt": 3}) == []
