"""Tables of verdicts: what each shape is read as, what is refused, and how verdicts join records."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import InputError
from core.settings.data import Data
from core.settings.judges import JudgeTable
from votes.comparison import InvalidRow
from votes.digests import pair_digest
from votes.verdicts.join import JoinedVerdicts, Place, RecordIndex
from votes.verdicts.joined import model_names
from votes.verdicts.tables import find_verdict_files
from votes.verdicts.verdict import Verdict

TEXTS = (["Why?"], ["yes"], ["no"])


def read(tmp_path: Path, name: str, content: str, **settings):
    """Return the format of a table, its verdicts as simple tuples, and the reasons of rows without one."""
    path = tmp_path / name
    path.write_text(content)
    (file,) = find_verdict_files(JudgeTable(path=str(path), **settings), Data())
    numbered = list(file.verdicts())
    bad = [(number, str(verdict)) for number, verdict in numbered if isinstance(verdict, InvalidRow)]
    return file.format, [verdict for _, verdict in numbered if not isinstance(verdict, InvalidRow)], bad


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("header", "row", "shares", "scores", "order"),
    [
        ("id,judge,verdict", "1,g,model_a", {"a": 1.0}, None, None),
        ("pair_id,judge,order,winner", "1,g,ba,B", {"b": 1.0}, None, "ba"),
        ("id,judge,verdict", "1,g,A>>B", {"a": 1.0}, None, None),
        ("id,judge,verdict", "1,g,[[B>A]]", {"b": 0.75, "tie": 0.25}, None, None),
        ("id,judge,verdict", "1,g,A=B", {"tie": 1.0}, None, None),
        ("id,judge,p_a,p_b,p_tie", "1,g,0.5,0.25,0.25", {"a": 0.5, "b": 0.25, "tie": 0.25}, None, None),
        ("id,judge,p_a,p_b", "1,g,3,1", {"a": 0.75, "b": 0.25}, None, None),
        ("id,judge,score_a,score_b", "1,g,7,9.5", None, (7.0, 9.5), None),
        ("id,annotator,preference", "1,g,1.25", {"a": 0.75, "b": 0.25}, None, None),
        ("id,annotator,preference", "1,g,1.5", {"tie": 1.0}, None, None),
    ],
)
def test_a_long_table(tmp_path, header, row, shares, scores, order):
    named, (verdict,), bad = read(tmp_path, "v.csv", f"{header}\n{row}\n")
    assert (named, bad) == ("long_table", [])
    assert (verdict.id, verdict.judge, verdict.shares, verdict.scores, verdict.order) == (
        "1",
        "g",
        shares,
        scores,
        order,
    )


@pytest.mark.parametrize(
    ("header", "row", "reason"),
    [
        ("id,judge,verdict", "1,g,C", "unknown verdict 'C'"),
        ("id,judge,verdict", "1,g,both", "unknown verdict 'both'"),
        ("id,judge,verdict", "1,g,", "no verdict"),
        ("id,judge,verdict", ",g,A", "missing id"),
        ("id,judge,order,verdict", "1,g,first,A", "unknown order 'first'; write ab or ba"),
        ("id,judge,score_a,score_b", "1,g,seven,9", "score_a is not a number"),
        ("id,judge,score_a,score_b", "1,g,inf,9", "score_a is not a finite number"),
        ("id,judge,score_a,score_b", "1,g,,9", "missing score_a"),
        ("id,judge,p_a,p_b", "1,g,,", "no verdict"),
        ("id,judge,p_a,p_b", "1,g,-1,2", "a share of the vote is negative or not a number"),
        ("id,judge,preference", "1,g,3", "preference is neither 0 nor between 1 and 2"),
        ("id,judge,verdict,cost", "1,g,A,-2", "cost is negative"),
    ],
)
def test_what_is_no_verdict_is_never_a_tie(tmp_path, header, row, reason):
    _, verdicts, bad = read(tmp_path, "v.csv", f"{header}\n{row}\n")
    assert verdicts == []
    assert bad == [(1, reason)]


def test_columns_of_any_name(tmp_path):
    columns = {"id": "key", "verdict": {"column": "label", "map": {"1": "a", "2": "b", "0": "tie"}}, "judge": "who"}
    content = "key,label,who\n7,2,m\n8,0,m\n9,5,m\n"
    named, verdicts, bad = read(tmp_path, "v.csv", content, columns=columns)
    assert named == "long_table"
    assert [(verdict.id, verdict.shares) for verdict in verdicts] == [("7", {"b": 1.0}), ("8", {"tie": 1.0})]
    assert bad == [(3, "the verdict is '5', not one of 1, 2, 0")]


def test_arena_hard_has_two_games_the_second_with_the_answers_exchanged(tmp_path):
    games = [{"score": "A>>B"}, {"score": "A>B"}]
    rows: list[dict[str, Any]] = [{"uid": "q1", "model": "m", "judge": "g", "games": games}]
    rows.append({**rows[0], "uid": "q2", "games": [{"score": None}, {"score": "B>>A"}]})
    rows.append({**rows[0], "uid": "q3", "games": [None, {"score": None}]})
    named, verdicts, bad = read(tmp_path, "v.jsonl", lines(*rows))
    assert named == "arena_hard"
    kept = [(verdict.id, verdict.order, verdict.shares, verdict.model_b) for verdict in verdicts]
    assert kept == [
        ("q1", "ab", {"a": 1.0}, "m"),
        ("q1", "ba", {"b": 0.75, "tie": 0.25}, "m"),
        ("q2", "ba", {"a": 1.0}, "m"),
    ]
    assert bad == [(3, "no verdict")]


def promptfoo(test: int, output: str, *grades: tuple[str, bool, float | None]):
    components = [
        {"assertion": {"type": kind, "provider": "openai:g"}, "pass": passed, "score": score}
        for kind, passed, score in grades
    ]
    prompt, result = {"raw": "Why?"}, {"componentResults": components}
    return {"testIdx": test, "prompt": prompt, "response": {"output": output}, "gradingResult": result}


def test_promptfoo_gives_a_verdict_or_scores_for_each_test_of_two_outputs(tmp_path):
    rows = [promptfoo(0, "yes", ("select-best", True, 1.0)), promptfoo(0, "no", ("select-best", False, 0.0))]
    rows += [promptfoo(1, "yes", ("llm-rubric", True, 0.75)), promptfoo(1, "no", ("llm-rubric", True, 0.5))]
    rows += [promptfoo(2, "yes", ("select-best", True, 1.0))]
    rows += [promptfoo(3, "yes", ("contains", True, 1.0)), promptfoo(3, "no", ("contains", True, 1.0))]
    named, verdicts, bad = read(tmp_path, "v.json", json.dumps({"results": rows}))
    assert named == "promptfoo"
    assert [(verdict.judge, verdict.shares, verdict.scores) for verdict in verdicts] == [
        ("openai:g", {"a": 1.0}, None),
        ("openai:g", None, (0.75, 0.5)),
    ]
    assert {(verdict.digest, verdict.exchanged) for verdict in verdicts} == {pair_digest(*TEXTS)}
    reasons = ["the test has 1 outputs of one prompt, not two", "no language model has graded both outputs"]
    assert bad == [(5, reasons[0]), (6, reasons[1])]


def test_promptfoo_takes_the_mean_of_a_judges_scores_and_quarantines_odd_rows(tmp_path):
    twice = [
        promptfoo(0, answer, *(("llm-rubric", True, score) for score in scores))
        for answer, scores in (("yes", (0.0, 1.0)), ("no", (1.0, 0.5)))
    ]
    odd = [promptfoo(1, "yes", ("llm-rubric", True, None)), promptfoo(1, "no", ("llm-rubric", True, 0.5))]
    text = [{**promptfoo(2, "yes"), "response": "yes"}]
    _, verdicts, bad = read(tmp_path, "v.json", json.dumps({"results": [*twice, *odd, *text]}))
    assert [verdict.scores for verdict in verdicts] == [(0.5, 0.75)]
    assert [number for number, _ in bad] == [5, 3]


def test_a_task_that_only_people_have_judged_has_no_verdict(tmp_path):
    data = {"prompt": "Why?", "answer1": "yes", "answer2": "no"}
    result = [{"type": "pairwise", "value": {"selected": "left"}}]
    people = {"annotations": [{"completed_by": 3, "result": result}]}
    tasks = [
        {"id": 1, "data": data, **people, "predictions": [{"model_version": "g", "result": result}]},
        {"id": 2, "data": data, **people, "predictions": []},
    ]
    _, verdicts, bad = read(tmp_path, "v.json", json.dumps(tasks))
    assert [verdict.judge for verdict in verdicts] == ["g"]
    assert bad == [(2, "no model has judged the task")]


def test_votes_of_judges_in_the_shapes_of_votes(tmp_path):
    alpaca = {"instruction": "Why?", "output_1": "yes", "output_2": "no", "annotator": "g", "preference": 2.0}
    pairs = {
        "annotators": {"h": {"type": "human"}, "g": {"type": "principle"}},
        "comparisons": [
            {
                "prompt": "Why?",
                "response_a": {"text": "yes"},
                "response_b": {"text": "no"},
                "annotations": {"h": {"pref": "a"}, "g": {"pref": "b"}},
            }
        ],
    }
    studio = {
        "data": {"prompt": "Why?", "text1": "yes", "text2": "no"},
        "annotations": [{"completed_by": 1, "result": [{"type": "pairwise", "value": {"selected": "left"}}]}],
        "predictions": [{"model_version": "g", "result": [{"type": "pairwise", "value": {"selected": "right"}}]}],
    }
    tables = {"alpaca_eval": [alpaca], "annotated_pairs": pairs, "label_studio": [studio]}
    for name, content in tables.items():
        named, (verdict,), bad = read(tmp_path, f"{name}.json", json.dumps(content))
        assert (named, bad) == (name, [])
        assert (verdict.judge, verdict.shares) == ("g", {"b": 1.0})
        assert (verdict.digest, verdict.exchanged) == pair_digest(*TEXTS)


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        ("key,label\n1,A\n", {}, "no format of verdicts has these columns: 'key', 'label'"),
        ("id,verdict\n1,A\n", {"columns": {"id": "id", "verdict": "label"}}, "no column 'label'"),
    ],
)
def test_an_unknown_table_is_refused_with_its_columns(tmp_path, content, settings, says):
    with pytest.raises(InputError, match=says):
        read(tmp_path, "v.csv", content, **settings)


def index() -> RecordIndex:
    digest, exchanged = pair_digest(*TEXTS)
    first = Place("train", 0, exchanged, ("m1", "m2"))
    return RecordIndex({"1": [first], "2": [Place("train", 1, False, ("m1", "m2"))]}, {digest: [first]})


def joined(tmp_path: Path, content: str, **settings) -> JoinedVerdicts:
    path = tmp_path / "v.csv"
    path.write_text(content)
    table = JudgeTable(path=str(path), **settings)
    verdicts = JoinedVerdicts()
    for file in find_verdict_files(table, Data()):
        verdicts.add_file(file, table, index())
    return verdicts


def test_verdicts_join_by_id_with_the_models_in_either_order(tmp_path):
    content = "id,judge,model_a,model_b,verdict,order\n1,g,m1,m2,A,ab\n2,g,m2,m1,A,ab\n1,g,m1,m3,A,ba\n9,g,m1,m2,A,ab\n"
    verdicts = joined(tmp_path, content)
    kept = [(row["record"], row["order"], row["shares"]) for row in verdicts.verdicts]
    assert kept == [(0, "ab", [1, 0, 0, 0]), (1, "ba", [0, 1, 0, 0])]
    reasons = {row["id"]: row["reason"] for row in verdicts.quarantined}
    assert reasons == {
        "1": "the models are not those of the record with this id",
        "9": "no record has this id or these texts",
    }
    assert verdicts.metrics(["train"])["unknown_ids"] == ["9"]
    assert json.loads(verdicts.quarantined[0]["raw"])["model_b"] == "m3"


def test_empty_models_say_nothing_of_the_order(tmp_path):
    verdicts = joined(tmp_path, "id,judge,model_a,model_b,verdict\n1,g,,,A\n2,g,m1,,A\n")
    assert [row["shares"] for row in verdicts.verdicts] == [[1, 0, 0, 0], [1, 0, 0, 0]]


def test_texts_of_no_record_do_not_join_by_an_id():
    with pytest.raises(InvalidRow, match="no record has this id or these texts"):
        index().join(Verdict("g", id="1", digest=12345))


def test_a_second_verdict_in_one_order_is_quarantined_and_in_the_other_order_it_is_not(tmp_path):
    verdicts = joined(tmp_path, "id,judge,order,verdict\n1,g,ab,A\n1,g,ab,B\n1,g,ba,A\n1,h,ab,B\n")
    assert [(row["judge"], row["order"]) for row in verdicts.verdicts] == [("g", "ab"), ("g", "ba"), ("h", "ab")]
    (rejected,) = verdicts.quarantined
    assert rejected["reason"] == "another verdict of this judge on this pair, in this order"


def test_texts_join_the_record_with_its_sides(tmp_path):
    row = {"instruction": "Why?", "output_1": "no", "output_2": "yes", "annotator": "g", "preference": 1.0}
    path = tmp_path / "v.json"
    path.write_text(json.dumps([row]))
    table = JudgeTable(path=str(path))
    verdicts = JoinedVerdicts()
    verdicts.add_file(find_verdict_files(table, Data())[0], table, index())
    assert verdicts.verdicts[0]["shares"] == [0, 1, 0, 0]


def test_a_table_without_judges_takes_its_name_from_the_settings(tmp_path):
    content = "id,verdict\n1,A\n"
    assert joined(tmp_path, content, name="mine").verdicts[0]["judge"] == "mine"
    with pytest.raises(InputError, match=r"names no judge.*name: NAME"):
        joined(tmp_path, content)
    with pytest.raises(InputError, match="several judges: g, h"):
        joined(tmp_path, "id,judge,verdict\n1,g,A\n2,h,A\n", name="mine")


def test_models_have_the_names_of_judges_as_folders_have_them():
    assert model_names(["gpt-3.5", "GPT-4 rating"]) == {"gpt-3-5": "gpt-3.5", "GPT-4-rating": "GPT-4 rating"}
    with pytest.raises(InputError, match=r"'a\.b' and 'a b' would both be the model 'a-b'"):
        model_names(["a.b", "a b"])


def test_a_table_may_give_some_of_its_judges_alone(tmp_path):
    content = "id,judge,verdict\n1,g,A\n2,h,A\n2,i,C\n"
    verdicts = joined(tmp_path, content, only=["g"])
    assert [row["judge"] for row in verdicts.verdicts] == ["g"]
    assert joined(tmp_path, content, only=["g"], name="mine").verdicts[0]["judge"] == "mine"


def test_the_schema_holds_what_is_joined(tmp_path):
    from votes.verdicts.join import VERDICTS

    verdicts = joined(tmp_path, "id,judge,score_a,score_b,cost,seconds\n1,g,3,4,0.002,1.5\n")
    (row,) = pa.Table.from_pylist(verdicts.verdicts, VERDICTS).to_pylist()
    assert (row["score_a"], row["score_b"], row["shares"], row["cost"], row["seconds"]) == (3, 4, None, 0.002, 1.5)
