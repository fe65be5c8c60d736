"""The section on voters: who is compared, what is on the page, and when there is no section."""

import types

import numpy as np
import pyarrow as pa
import pytest

from core.registry import SECTIONS
from metrics.baselines import class_prior_baseline
from report.page import _render_section, page_environment
from tests.helpers.blend_votes import single_votes

PEOPLE = ("ann", "bob", "<cid>", "dan")


def context(people=4, records=60, seed=0):
    """Votes of people on each record: three say the truth mostly, the fourth another outcome always."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, records)
    votes = np.stack(
        [np.where(rng.random(records) < 0.8, truth, rng.integers(0, 3, records)) for _ in range(people)], 1
    )
    votes[:, -1] = (truth + 1) % 3
    folds, groups = (np.arange(records) % 5).astype(np.int16), np.arange(records)
    of_records = single_votes(truth.astype(np.int8), folds, groups)
    ballots = pa.table(
        {
            "record": np.repeat(np.arange(records), people),
            "voter": [PEOPLE[n % people] for n in range(records * people)],
            "votes": np.eye(3)[votes.ravel()].tolist(),
            "weight": np.ones(records * people),
            "exchanged": np.zeros(records * people, bool),
        }
    )
    return types.SimpleNamespace(
        votes=of_records,
        records=types.SimpleNamespace(ballots=lambda: ballots),
        blend=0.7 * np.eye(3)[truth] + 0.1,
        baselines={"class prior": class_prior_baseline(of_records)},
        seed=0,
    )


def rendered(of_run):
    section = SECTIONS.get("voters")
    metrics = section.compute(of_run)
    return metrics, _render_section(section, page_environment(metrics), of_run, metrics)


def test_people_are_compared_with_each_other_and_the_blend_with_the_ceiling():
    metrics, page = rendered(context())
    voters = metrics["voters"]
    assert (voters["votes"], voters["shared_votes"], voters["records"], voters["voters"]) == (240, 240, 60, 4)
    ceiling = {name: score["value"] for name, score in voters["ceiling"].items()}
    assert ceiling["all_others"] < ceiling["class_prior"]
    assert all(score["ci95"][0] <= score["value"] <= score["ci95"][1] for score in voters["ceiling"].values())
    against = [person["voter"] for person in voters["people"] if person["against_all"]]
    assert against == ["dan"]
    assert voters["against_all"] == 1
    assert "<h2>Voters</h2>" in page
    assert page.count("(against all)") == 1
    assert "&lt;cid&gt;" in page
    assert f"{ceiling['all_others']:.4f}" in page


@pytest.mark.parametrize(("people", "records"), [(2, 60), (4, 20)])
def test_few_votes_have_no_section(people, records):
    metrics, page = rendered(context(people, records))
    assert metrics == {}
    assert page == ""


def test_a_run_without_several_votes_has_no_section():
    of_run = context()
    of_run.records = types.SimpleNamespace(ballots=lambda: None)
    assert rendered(of_run) == ({}, "")


def test_the_side_that_a_voter_saw_first_is_counted():
    of_run = context()
    table = of_run.records.ballots()
    exchanged = pa.array([voter == "bob" for voter in table["voter"].to_pylist()])
    votes = [[1.0, 0, 0] if voter == "ann" else [0, 1.0, 0] for voter in table["voter"].to_pylist()]
    table = table.set_column(2, "votes", pa.array(votes)).set_column(4, "exchanged", exchanged)
    of_run.records = types.SimpleNamespace(ballots=lambda: table)
    people = {person["voter"]: person["first"] for person in SECTIONS.get("voters").compute(of_run)["voters"]["people"]}
    assert people == {"ann": 1.0, "bob": 1.0, "<cid>": 0.0, "dan": 0.0}
