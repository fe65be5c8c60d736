"""Every format reads its file as it must be read."""

import json
from typing import Any

import pytest

from core.errors import InputError
from core.registry import FORMATS
from tests.helpers.commands import ROOT, SHARED
from tests.helpers.ingest import ingest_here
from votes.reference import formats_page

FILES = SHARED / "formats"
EXPECTED: dict[str, Any] = json.loads((FILES / "expected.json").read_text("utf-8")) if FILES.is_dir() else {}
SIDES = {"first": "a", "second": "b", "tie": "tie", "both_bad": "both_bad"}


@pytest.mark.skipif(not EXPECTED, reason="the folder of formats, ../shared/data/formats, is not beside the project")
@pytest.mark.parametrize("name", EXPECTED or ["none"])
def test_a_file_is_read_as_it_must_be(tmp_path, name):
    outcomes = ["a", "b", "tie", "both_bad"]
    path = FILES / name
    if name == "nectar.jsonl":  # folds need a second prompt
        line = path.read_text("utf-8")
        path = tmp_path / name
        path.write_text(line + line.replace("bread", "dough", 1), "utf-8")
    table, metrics = ingest_here(tmp_path, path, outcomes=outcomes)
    if name == "nectar.jsonl":
        table = table[: len(table) // 2]
    assert metrics["rejected"] == []
    records = table.to_pylist()
    assert len(records) == len(EXPECTED[name]["records"])
    for record, expected in zip(records, EXPECTED[name]["records"], strict=True):
        first, second = expected["answers"]["first"], expected["answers"]["second"]
        drawn = record["response_a"] != first  # the sides of ranked answers are drawn
        a, b = ("b", "a") if drawn else ("a", "b")
        assert record["prompt"] == expected["prompt"]
        assert (record[f"response_{a}"], record[f"response_{b}"]) == (first, second)
        votes = dict(zip(outcomes, record["votes"], strict=True))
        shares = {"first": votes[a], "second": votes[b], "tie": votes["tie"], "both_bad": votes["both_bad"]}
        total = sum(shares.values())
        best = [side for side, share in shares.items() if share > max(shares.values()) - 1e-9]
        assert (best[0] if len(best) == 1 else None) == expected["outcome"]
        if "votes" in expected:
            of_file = {side: share / total for side, share in shares.items() if share}
            assert of_file == pytest.approx(expected["votes"], abs=0.006)
        for side, model in ((a, expected.get("model_first")), (b, expected.get("model_second"))):
            assert record[f"model_{side}"] == model
        if "voter" in expected:
            assert {ballot["voter"] for ballot in metrics["ballots"] if ballot["id"] == record["id"]} == {
                expected["voter"]
            }


def test_every_format_has_a_line_for_the_documentation():
    for member in FORMATS:
        assert member.summary
        assert "\n" not in member.summary
        assert member.needs(True) >= member.needs(False)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("id,question,response1,response2,winner", "no format of votes has these columns: 'id', 'question'"),
        ("id,prompt,response_a,response_b", "missing column winner of the format winner"),
        ("prompt,response_a,response_b,winner,winner_model_a,winner_model_b,winner_tie", "fit several formats"),
    ],
)
def test_an_unknown_or_ambiguous_file_is_refused_without_a_hint_to_exchange_sides(tmp_path, header, reason):
    path = tmp_path / "votes.csv"
    path.write_text(f"{header}\n")
    with pytest.raises(InputError, match=reason) as caught:
        ingest_here(tmp_path, path)
    assert "rename" not in caught.value.fix
    assert "data." in caught.value.fix


def test_the_page_is_up_to_date():
    page = (ROOT / "docs/formats.md").read_text("utf-8")
    assert page == formats_page(), "run `python -m votes.reference > docs/formats.md`"
