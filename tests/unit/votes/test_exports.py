"""Records written in another shape are read back the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.registry import EXPORTS
from tests.helpers.commands import SHARED
from tests.helpers.ingest import ingest_here
from votes.export import ExportedRecord, NotHeldError, VoteExport

FILES = SHARED / "formats"
NAMES = sorted(path.name for path in FILES.glob("*.*") if path.name != "expected.json") or ["none"]
OUTCOMES = ["a", "b", "tie", "both_bad"]
READ_AS = {"openai-dpo": "openai_dpo", "annotated-pairs": "annotated_pairs", "wsdm": "winner"}


def exported(table: Any, ballots: list[dict[str, Any]]) -> list[ExportedRecord]:
    columns = ["id", "prompt", "response_a", "response_b", "votes", "model_a", "model_b", "language"]
    return [
        ExportedRecord(**row, ballots=[ballot for ballot in ballots if ballot["id"] == row["id"]])
        for row in table.select(columns).to_pylist()
    ]


def write(export: VoteExport, records: list[ExportedRecord], path: Path) -> list[ExportedRecord]:
    """Return the records that the shape holds."""
    held, rows = [], []
    for record in records:
        try:
            rows += list(export.rows(record))
            held.append(record)
        except NotHeldError:
            continue
    path.write_bytes(b"".join(export.encode(iter(rows))))
    return held


def content(record: ExportedRecord, names_voters: bool, names_models: bool) -> Any:
    """Return what a shape keeps of a record, with the sides in the order of their texts."""
    sides = [
        (record.response_a, record.model_a if names_models else None, "a"),
        (record.response_b, record.model_b if names_models else None, "b"),
    ]
    ordered = sorted(sides, key=lambda side: json.dumps(side[:2]))
    order = [OUTCOMES.index(side[2]) for side in ordered] + [2, 3]
    votes = [[*record.votes, 0.0][n] if n < len(record.votes) else 0.0 for n in order]
    voters = sorted(str(ballot["voter"]) for ballot in record.ballots) if names_voters else []
    return record.prompt, [side[:2] for side in ordered], [round(vote, 6) for vote in votes], voters


def filler(number: int) -> ExportedRecord:
    """Return a record that every shape holds, because folds need two prompts."""
    return ExportedRecord(f"filler {number}", [f"Filler {number}?"], ["one"], ["two"], [1, 0], model_a="x", model_b="y")


@pytest.mark.skipif(
    not FILES.is_dir(), reason="the folder of formats, ../shared/data/formats, is not beside the project"
)
@pytest.mark.parametrize("name", NAMES)
def test_a_file_goes_to_every_shape_and_back(tmp_path, name):
    path = FILES / name
    if name == "nectar.jsonl":  # folds need a second prompt
        line = path.read_text("utf-8")
        path = tmp_path / name
        path.write_text(line + line.replace("bread", "dough", 1), "utf-8")
    table, metrics = ingest_here(tmp_path / "first", path, outcomes=OUTCOMES)
    records = exported(table, metrics["ballots"])
    for shape in EXPORTS.names():
        export = EXPORTS.get(shape)
        written = tmp_path / f"{shape}{export.ending}"
        held = write(export, [*records, filler(1), filler(2)], written)
        again, metrics = ingest_here(tmp_path / shape, written, outcomes=OUTCOMES)
        assert metrics["rejected"] == []
        assert metrics["format"] == READ_AS.get(shape, shape)
        read = exported(again, metrics["ballots"])
        if shape != "openai-dpo":  # which has no ids
            assert [record.id for record in read] == [record.id for record in held]
        one_winner = export.one_winner  # the votes of a pair are one winner, without voters
        kept, back = (
            [
                content(
                    record,
                    not one_winner and any(ballot["voter"] for ballot in of_held.ballots),
                    shape not in ("trl", "openai-dpo"),
                )
                for record, of_held in zip(part, held, strict=True)
            ]
            for part in (held, read)
        )
        if one_winner:
            kept, back = ([(*fields[:2], fields[2].index(max(fields[2]))) for fields in part] for part in (kept, back))
        assert back == kept, shape


def test_what_a_shape_cannot_hold_is_said():
    tie = ExportedRecord("1", ["Why?"], ["yes"], ["no"], [0, 0, 1])
    split = ExportedRecord("2", ["Why?"], ["yes"], ["no"], [1, 1, 0])
    rounds = ExportedRecord("3", ["Why?", "And?"], ["yes", "so"], ["no", "so"], [1, 0, 0])
    cases = [
        ("trl", tie, "a tie"),
        ("wsdm", split, "as many votes for one outcome as for another"),
        ("wsdm", rounds, "several turns, or a missing one"),
        ("openai-dpo", rounds, "the answers differ before the last round"),
        ("annotated-pairs", ExportedRecord("4", ["Why?"], ["yes"], ["no"], [0.5, 0.5, 0]), "a soft vote"),
    ]
    for shape, record, reason in cases:
        with pytest.raises(NotHeldError, match=reason):
            list(EXPORTS.get(shape).rows(record))


def test_a_margin_is_for_the_chosen_answer():
    record = ExportedRecord("1", ["Why?"], ["yes"], ["no"], [0, 1], margin=0.75)
    (row,) = EXPORTS.get("trl").rows(record)
    assert row["chosen"][0]["content"] == "no"
    assert row["margin"] == -0.75


def test_people_with_two_votes_and_unknown_people_come_back(tmp_path):
    votes = [("ann", [1, 0, 0]), ("ann", [0, 0, 1]), (None, [0, 1, 0]), (None, [1, 0, 0])]
    ballots = [{"voter": voter, "time": "12", "votes": shares} for voter, shares in votes]
    record = ExportedRecord("1", ["Why?"], ["yes"], ["no"], [2, 1, 1], ballots)
    for shape in ("annotated-pairs", "arena", "kaggle"):
        export = EXPORTS.get(shape)
        path = tmp_path / f"{shape}{export.ending}"
        write(export, [record, filler(1), filler(2)], path)
        table, metrics = ingest_here(tmp_path / shape, path)
        assert table["votes"].to_pylist()[0] == [2, 1, 1]
        voters = [ballot["voter"] for ballot in metrics["ballots"] if ballot["id"] == "1"]
        expected = {"annotated-pairs": ["ann", "ann (2)", None, None]}.get(shape, ["ann", "ann", None, None])
        assert sorted(map(str, voters)) == sorted(map(str, expected)), shape
