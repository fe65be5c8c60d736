"""Rows of exports that are odd in one way each: read right, or quarantined with a reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import InputError
from tests.helpers.ingest import ingest_here

WHY = [{"role": "user", "content": "Why?"}]


def lines(folder: Path, rows: list[dict[str, Any]], name: str = "votes.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the records of rows, and the reasons of those in quarantine. A second prompt makes folds possible."""
    table, metrics = ingest_here(folder, lines(folder, rows), **settings)
    return table.to_pylist(), [row["reason"] for row in metrics["rejected"]]


def arena(*messages: dict[str, Any], **others: Any) -> dict[str, Any]:
    plain = [*WHY, {"role": "assistant", "content": "yes"}]
    sides = {"conversation_a": [*messages], "conversation_b": plain}
    return {"model_a": "m", "model_b": "n", **sides, "winner": "model_a"} | others


GOOD = arena({"role": "user", "content": "How?"}, {"role": "assistant", "content": "so"}) | {
    "conversation_b": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "no"}]
}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"text": "yes"}, "yes"),
        ({"parts": [{"text": "ye"}, {"text": "s"}]}, "ye\ns"),
        ({"content": None}, None),
        ({"content": "yes", "tool_calls": [{"name": "f"}]}, 'yes\n[{"name": "f"}]'),
        ({"content": None, "function_call": {"name": "f"}}, '{"name": "f"}'),
        ({"content": [{"type": "text", "text": {"value": "yes"}}]}, "yes"),
        ({"content": [{"type": "text", "text": "see"}, {"inline_data": {"data": "="}}]}, "see\n[inline_data]"),
    ],
)
def test_what_a_message_says_is_kept(tmp_path, message, text):
    records, rejected = read(tmp_path, [GOOD, arena(*WHY, {"role": "assistant", **message})])
    assert rejected == []
    assert records[1]["response_a"] == [text]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (arena(*WHY, {"role": "assistant"}), "a message has no content"),
        (arena(*WHY, {"role": "assistant", "content": [{"type": "text"}]}), "a block of the type text has no text"),
        (arena(*WHY, {"role": "assistant", "content": 3}), "neither text nor a list of blocks"),
        (arena(*WHY, {"role": "robot", "content": "yes"}), "unknown role 'robot'"),
    ],
)
def test_a_message_without_a_text_is_quarantined(tmp_path, row, reason):
    records, rejected = read(tmp_path, [GOOD, row, arena(*WHY, {"role": "assistant", "content": "fine"})])
    assert reason in rejected[0]
    assert len(records) == 2


def test_messages_as_numpy_writes_them_are_read_and_cut_off_ones_are_quarantined(tmp_path):
    rows: list[dict[str, Any]] = []
    for number, question in enumerate(("Why?", "How?")):
        asked = {"role": "user", "content": question}
        a, b = (str(np.array([asked, {"role": "assistant", "content": "it's } { " + side}])) for side in "ab")
        row: dict[str, Any] = {"question_id": number, "model_a": "m", "model_b": "n", "winner": "tie"}
        rows.append({**row, "conversation_a": a, "conversation_b": b})
    rows.append({**rows[0], "question_id": 2, "conversation_a": rows[0]["conversation_a"][:40]})
    records, rejected = read(tmp_path, rows)
    assert [record["response_a"] for record in records] == [["it's } { a"], ["it's } { a"]]
    assert rejected == ["conversation_a is not a list of messages"]


def test_a_list_of_texts_is_no_answer(tmp_path):
    row: dict[str, Any] = {"prompt": "Why?", "response_1": "yes", "response_2": "no", "preference_strength": 1}
    rows = [row, {**row, "prompt": "How?"}, {**row, "response_1": ["a", "b"]}]
    rows.append({**row, "response_2": ["only"], "prompt": "Who?"})
    records, rejected = read(tmp_path, rows)
    assert rejected == ["a list of texts is in the place of one text"]
    assert records[2]["response_b"] == ["only"]


def test_a_winner_that_is_side_and_model_is_refused(tmp_path):
    row: dict[str, Any] = {
        "prompt": "Why?",
        "response_a": "yes",
        "response_b": "no",
        "model_a": "B",
        "model_b": "A",
        "winner": "A",
    }
    same = {**row, "model_a": "A", "model_b": "B"}
    records, rejected = read(tmp_path, [row, same, {**same, "prompt": "How?"}])
    assert rejected == ["the winner 'A' is one side's name and the other side's model"]
    assert [record["votes"] for record in records] == [[1, 0], [1, 0]]


@pytest.mark.parametrize("value", [True, "nan", float("nan"), "much"])
def test_a_grade_that_is_no_number_is_quarantined(tmp_path, value):
    row: dict[str, Any] = {"prompt": "Why?", "response_1": "yes", "response_2": "no", "preference_strength": 1}
    _, rejected = read(tmp_path, [row, {**row, "prompt": "How?"}, {**row, "preference_strength": value}])
    assert rejected == ["preference_strength is not a number"]


def states(question: str) -> list[dict[str, Any]]:
    names = (("USER", "BOT"), ("### Human", "### Bot"))
    sides = [[[names[n][0], question], [names[n][1], "xy"[n]]] for n in range(2)]
    return [{"messages": messages, "conv_id": "c"} for messages in sides]


@pytest.mark.parametrize(
    "row",
    [
        {"models": ["m", "n"], "type": "leftvote", "states": [{"messages": 3}, {"messages": [["A", "b"]]}]},
        {"models": ["m", "n"], "type": "leftvote", "states": ["x", None]},
        {"models": ["m", "n"], "type": "leftvote", "states": [{"messages": [["A"]]}, {}]},
    ],
)
def test_a_row_of_other_types_is_quarantined(tmp_path, row):
    good = [{"models": ["m", "n"], "type": "rightvote", "states": states(question)} for question in ("Why?", "How?")]
    records, rejected = read(tmp_path, [*good, row])
    assert len(records) == 2  # of one conversation, which went on
    assert "format fastchat_log" in rejected[0] or "no messages" in rejected[0]
    assert records[0]["response_b"] == ["y"]


def test_images_of_a_fastchat_arena_are_markers(tmp_path):
    asked = ["USER", ["What is this?", ["iVBOR", "iVBOS"]]]
    sides = [{"messages": [asked, ["BOT", answer]]} for answer in ("a cat", "a dog")]
    row: dict[str, Any] = {"models": ["m", "n"], "type": "tievote", "states": sides}
    other = {**row, "states": [{"messages": [["USER", "Why?"], ["BOT", "x"]]}] * 2}
    table, metrics = ingest_here(tmp_path, lines(tmp_path, [row, other]))
    assert table["prompt"].to_pylist()[0] == ["What is this?\n[image]\n[image]"]
    assert metrics["attachments"] == 4


def test_lists_and_dicts_in_the_place_of_names(tmp_path):
    row: dict[str, Any] = {"prompt": "Why?", "response_a": "yes", "response_b": "no", "winner": "a"}
    row |= {"model_a": "\ud800x", "model_b": {"name": "m"}, "annotator": ["ann", "bob"]}
    records, rejected = read(tmp_path, [row, {**row, "prompt": "How?"}])
    assert rejected == []
    assert (records[0]["model_a"], records[0]["model_b"]) == ("\ufffdx", None)


def test_answers_that_repeat_the_prompt_are_conversations(tmp_path):
    said = {"role": "assistant", "content": "yes"}
    row: dict[str, Any] = {"response_2": [said], "preference_strength": -3}
    rows = [
        {"prompt": question, "response_1": [{"role": "user", "content": question}, said], **row}
        for question in ("Why?", "How?")
    ]
    rows.append({**rows[0], "response_1": rows[1]["response_1"]})
    records, rejected = read(tmp_path, rows)
    assert [record["response_a"] for record in records] == [["yes"], ["yes"]]
    assert rejected == ["an answer is a conversation that does not begin with the prompt"]


def test_positions_are_for_lists_and_keys_for_objects(tmp_path):
    columns: dict[str, Any] = {"prompt": "q", "response_a": ["answers", 0], "response_b": ["answers", 1]}
    columns["winner"] = {"column": "w", "map": {"1": "a", "true": "b"}}
    rows = [
        {"q": "Why?", "answers": ["yes", "no"], "w": 1.0, "id": None},
        {"q": "How?", "answers": ["so", "not"], "w": True},
        {"q": "Who?", "answers": "yes", "w": 1},
        {"q": "Who?", "answers": {"0": "yes"}, "w": 1},
    ]
    records, rejected = read(tmp_path, rows, columns=columns)
    assert [record["votes"] for record in records] == [[1, 0], [0, 1]]
    assert rejected == ["missing response_a"] * 2


def test_a_voter_left_out_in_one_row_still_votes_on_the_same_pair(tmp_path):
    row: dict[str, Any] = {
        "id": 1,
        "prompt": "Why?",
        "response_a": "yes",
        "response_b": "no",
        "winner": "a",
        "voter": "ann",
    }
    rows = [row, {**row, "id": 2, "voter": None, "winner": "b"}, {**row, "id": 3, "prompt": "How?"}]
    records, _ = read(tmp_path, rows)
    assert [record["votes"] for record in records] == [[1, 1], [1, 0]]


def test_ranked_lists_with_an_id_have_an_id_for_each_pair(tmp_path):
    answers = [{"answer": text, "rank": rank, "model": f"m{rank}"} for rank, text in enumerate("abc", start=1)]
    rows = [{"id": n, "prompt": question, "answers": answers} for n, question in enumerate(("Why?", "How?"))]
    rows.append({"id": 9, "prompt": "Who?", "answers": [*answers, {"answer": "d", "rank": float("nan")}]})
    records, rejected = read(tmp_path, rows)
    assert len({record["id"] for record in records}) == 6
    assert rejected == ["rank is not a number"]
    records, _ = read(tmp_path, rows, pairs="best_worst")
    assert [record["id"] for record in records] == ["0-0-2", "1-0-2"]


def test_argilla_users_may_leave_a_question_empty_and_pairs_are_chosen(tmp_path):
    ranking = [{"value": f"response{n}", "rank": n} for n in (1, 2, 3)]
    row: dict[str, Any] = {"response1": "a", "response2": "b", "response3": "c"}
    row |= {"q.responses": [None, ranking], "q.responses.users": ["u1", "u2"]}
    rows = [{"id": f"r{n}", "prompt": question, **row} for n, question in enumerate(("Why?", "How?"))]
    records, rejected = read(tmp_path, rows, pairs="adjacent")
    assert rejected == []
    assert [(record["response_a"], record["response_b"]) for record in records[:2]] == [(["a"], ["b"]), (["b"], ["c"])]


def test_pairs_to_score_without_ids_are_named_by_their_rows(tmp_path):
    row: dict[str, Any] = {"prompt": "Why?", "response_a": "yes", "response_b": "no"}
    table, _ = ingest_here(tmp_path, lines(tmp_path, [row, row]), split="test")
    assert table["id"].to_pylist() == ["1", "2"]
    sides = {name: GOOD[name] for name in ("conversation_a", "conversation_b")}
    _, metrics = ingest_here(tmp_path / "arena", lines(tmp_path, [sides]), split="test")
    assert metrics["format"] == "arena"


def test_columns_that_are_there_twice_are_refused(tmp_path):
    path = tmp_path / "votes.parquet"
    texts = pa.array(["x"])
    pq.write_table(pa.table([texts] * 5, names=["prompt", "prompt", "response_a", "response_b", "winner"]), path)
    with pytest.raises(InputError, match="'prompt' are there more than once"):
        ingest_here(tmp_path, path)
    for name, text in (
        ("votes.jsonl", '{"prompt": "x", "prompt": "y", "response_a": "a", "response_b": "b", "winner": "a"}\n'),
        ("votes.json", '[{"prompt": "x", "prompt": "y", "response_a": "a", "response_b": "b", "winner": "a"}]\n'),
    ):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match="row 1 has the key 'prompt' more than once"):
            ingest_here(tmp_path, path)


def test_files_of_spreadsheets(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("sep=;\r\nprompt;response_a;response_b;winner;;\r\nWhy?;yes;no;a;;\r\nHow?;so;not;b;;\r\n")
    table, metrics = ingest_here(tmp_path, path)
    assert metrics["rejected"] == []
    assert table["votes"].to_pylist() == [[1, 0], [0, 1]]


def test_capital_letters_are_said(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("Prompt,Response_A,Response_B,Winner\nWhy?,yes,no,a\n")
    with pytest.raises(InputError, match="missing columns prompt, response_a, response_b, winner") as caught:
        ingest_here(tmp_path, path)
    assert "small letters" in caught.value.fix


def test_json_under_the_name_of_json_lines_is_said_and_line_separators_are_text(tmp_path):
    path = tmp_path / "votes.jsonl"
    rows = [{"prompt": f"{q} \u2028 then", "response_a": "yes", "response_b": "no", "winner": "a"} for q in "xy"]
    path.write_text(json.dumps(rows, indent=1))
    with pytest.raises(InputError, match="one JSON value, not an object on each line"):
        ingest_here(tmp_path, path)
    path = tmp_path / "votes.json"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    table, metrics = ingest_here(tmp_path, path)
    assert metrics["rejected"] == []
    assert table["prompt"].to_pylist() == [["x \u2028 then"], ["y \u2028 then"]]


def test_an_unknown_winner_leads_to_the_map(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("prompt,response_a,response_b,winner\nWhy?,yes,no,7\n")
    with pytest.raises(InputError, match="unknown winner '7'") as caught:
        ingest_here(tmp_path, path)
    assert "map" in caught.value.fix


def test_mapped_columns_may_hold_lists_and_messages(tmp_path):
    path = tmp_path / "votes.csv"
    columns = {"prompt": "question", "response_a": "one", "response_b": "two", "winner": "best"}
    path.write_text(
        "question,one,two,best\n"
        + "".join(f'"[""q{n}"", ""and q{n}""]","[""a"", ""b""]","[""c"", ""d""]",a\n' for n in range(3))
    )
    table, _ = ingest_here(tmp_path, path, columns=columns)
    assert table["prompt"].to_pylist() == [[f"q{n}", f"and q{n}"] for n in range(3)]
    assert table["response_b"].to_pylist() == [["c", "d"]] * 3


def test_votes_on_both_turns_of_a_conversation_stay_in_one_fold(tmp_path):
    rows = []
    for n in range(12):
        sides = [
            [
                {"role": role, "content": f"{role} {n} {turn} {side * (role == 'assistant')}"}
                for turn in (1, 2)
                for role in ("user", "assistant")
            ]
            for side in (1, 2)
        ]
        row = {"question_id": n, "model_a": "m", "model_b": "n", "judge": "ann", "winner": "model_a"}
        rows += [{**row, "turn": turn, "conversation_a": sides[0], "conversation_b": sides[1]} for turn in (1, 2)]
    table, metrics = ingest_here(tmp_path, lines(tmp_path, rows), folds=5)
    assert metrics["format"] == "mt_bench"
    folds = np.array(table["fold"].to_pylist()).reshape(-1, 2)
    assert [len(turns) for turns in table["prompt"].to_pylist()[:2]] == [1, 2]
    assert (folds[:, 0] == folds[:, 1]).all()


def test_backslashes_stay_where_they_escape_quotes(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text(
        "prompt,response_a,response_b,winner\n"
        '"say \\"hi\\", please",Use \\frac{1}{2} in C:\\new,"a \\\\ b",model_a\n'
        '"say \\"ho\\", please",x,y,model_b\n'
    )
    table, metrics = ingest_here(tmp_path, path)
    assert metrics["rejected"] == []
    assert table["prompt"].to_pylist()[0] == ['say "hi", please']
    assert table["response_a"].to_pylist()[0] == ["Use \\frac{1}{2} in C:\\new"]
    assert table["response_b"].to_pylist()[0] == ["a \\ b"]


def argilla(n: int, **others: Any) -> dict[str, Any]:
    return {"id": n, "prompt": f"q{n}", "response1": "a", "response2": "b", "response3": "c", **others}


def test_argilla_rows_that_give_no_pair_are_quarantined(tmp_path):
    ranked = [
        [{"value": name, "rank": rank} for rank, name in enumerate(names)]
        for names in (("response1", "response2"), ("response2", "response3"))
    ]
    all_three = [[{"value": f"response{n}", "rank": n} for n in (1, 2, 3)]]
    rows = [argilla(n, **{"q.responses": all_three, "q.responses.users": ["u"]}) for n in range(2)]
    rows.append(argilla(2, **{"q.responses": ranked, "q.responses.users": ["u", "v"]}))
    records, rejected = read(tmp_path, rows, pairs="best_worst")
    assert len(records) == 2
    assert rejected == ["no user has ranked both answers of a pair"]


def test_two_ranking_questions_of_argilla_are_refused(tmp_path):
    ranking = [[{"value": f"response{n}", "rank": n} for n in (1, 2)]]
    rows = [argilla(n, **{f"{'kind' if n % 2 else 'true'}.responses": ranking}) for n in range(4)]
    with pytest.raises(InputError, match="several ranking questions: kind, true"):
        ingest_here(tmp_path, lines(tmp_path, rows))


def test_ranks_of_argilla_in_csv(tmp_path):
    ranking = json.dumps([[{"value": f"response{n}", "rank": n} for n in (1, 2)]]).replace('"', '""')
    path = tmp_path / "votes.csv"
    path.write_text(
        "id,prompt,response1,response2,q.responses,q.responses.users\n"
        + "".join(f'{n},q{n},a,b,"{ranking}","[""ann""]"\n' for n in range(2))
    )
    _, metrics = ingest_here(tmp_path, path)
    assert [ballot["voter"] for ballot in metrics["ballots"]] == ["ann", "ann"]


def test_nan_names_nobody(tmp_path):
    row: dict[str, Any] = {
        "response_a": "yes",
        "response_b": "no",
        "winner": "a",
        "model_a": float("nan"),
        "language": float("nan"),
    }
    voters = [float("nan"), 7, 7.0, "7"]
    records, _ = read(tmp_path, [{**row, "prompt": f"q{n}", "voter": voter} for n, voter in enumerate(voters)])
    assert {(record["model_a"], record["language"]) for record in records} == {(None, None)}
    _, metrics = ingest_here(tmp_path / "again", tmp_path / "votes.jsonl")
    assert [ballot["voter"] for ballot in metrics["ballots"]] == [None, "7", "7", "7"]


def test_an_empty_list_is_no_answer_and_a_tool_turn_may_begin_one(tmp_path):
    call = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "look(1)"}]
    answer = [{"role": "tool", "content": "found"}, {"role": "assistant", "content": "so"}]
    rows: list[dict[str, Any]] = [
        {"prompt": [{**call[0], "content": q}, call[1]], "chosen": answer, "rejected": answer[1:]}
        for q in ("Why?", "How?")
    ]
    rows.append({"prompt": "Who?", "chosen": [], "rejected": "no"})
    records, rejected = read(tmp_path, rows)
    assert rejected == ["an empty list is in the place of a text"]
    assert {*records[0]["response_a"], *records[0]["response_b"]} == {"look(1)\n\nfound\n\nso", "look(1)\n\nso"}
    assert records[0]["prompt"] == ["Why?"]


def test_tables_of_pandas_with_repeated_columns_or_short_rows(tmp_path):
    path = tmp_path / "votes.json"
    names = ["prompt", "response_a", "response_b", "winner"]
    path.write_text(json.dumps({"columns": names, "data": [["q", "a", "b", "a"], ["r", "a", "b", "b"], ["s", "a"]]}))
    table, metrics = ingest_here(tmp_path, path)
    assert len(table) == 2
    assert [row["reason"] for row in metrics["rejected"]] == ["not an object"]
    path.write_text(json.dumps({"columns": [*names, "prompt"], "data": [["q", "a", "b", "a", "x"]]}))
    with pytest.raises(InputError, match="'prompt' are there more than once"):
        ingest_here(tmp_path, path)


def test_one_record_with_messages_inside_is_one_record(tmp_path):
    path = tmp_path / "votes.json"
    path.write_text(json.dumps({"context": [*WHY], "response1": "a", "response2": "b"}))
    table, metrics = ingest_here(tmp_path, path, split="test")
    assert metrics["format"] == "helpsteer3"
    assert table["prompt"].to_pylist() == [["Why?"]]


def test_a_map_names_values_as_they_are_written(tmp_path):
    row: dict[str, Any] = {"prompt": "Why?", "response_a": "yes", "response_b": "no"}
    rows = [
        {**row, "winner": "v1.0"},
        {**row, "prompt": "How?", "winner": "2"},
        {**row, "prompt": "Who?", "winner": 2.0},
    ]
    columns: dict[str, Any] = {name: name for name in row} | {
        "winner": {"column": "winner", "map": {"v1.0": "a", "2.0": "b"}}
    }
    records, rejected = read(tmp_path, rows, columns=columns)
    assert rejected == []
    assert [record["votes"] for record in records] == [[1, 0], [0, 1], [0, 1]]


def test_ranked_pairs_to_score_have_an_id_each(tmp_path):
    answers = [{"answer": text, "rank": rank} for rank, text in enumerate("abc")]
    table, _ = ingest_here(tmp_path, lines(tmp_path, [{"prompt": "Why?", "answers": answers}]), split="test")
    assert table["id"].to_pylist() == ["1-1", "1-2", "1-3"]


def test_a_pair_that_has_a_name_needs_no_id(tmp_path):
    row: dict[str, Any] = {
        "id": 1,
        "pair_id": "p",
        "prompt": "Why?",
        "response_a": "yes",
        "response_b": "no",
        "winner": "a",
    }
    records, rejected = read(tmp_path, [row, {**row, "id": None}, {**row, "id": 3, "pair_id": "q", "prompt": "How?"}])
    assert rejected == []
    assert [record["votes"] for record in records] == [[2, 0], [1, 0]]


def test_what_ties_become_is_counted(tmp_path):
    row: dict[str, Any] = {"prompt": "Why?", "response_a": "yes", "response_b": "no"}
    winners = ["a", "both_bad", "tie", "b"]
    rows = [{**row, "prompt": f"q{n}", "winner": winner} for n, winner in enumerate(winners)]
    _, metrics = ingest_here(tmp_path / "two", lines(tmp_path, rows), outcomes=["a", "b"])
    assert (metrics["ties_as_halves"], metrics["labels"]) == (2.0, {"A": 3, "B": 1})
    assert "both_bad_as_tie" not in metrics
    _, metrics = ingest_here(tmp_path / "three", tmp_path / "votes.jsonl")
    assert (metrics["both_bad_as_tie"], metrics["labels"]) == (1.0, {"A": 1, "B": 1, "tie": 2})


def test_further_votes_of_a_voter_on_a_pair_are_counted(tmp_path):
    row: dict[str, Any] = {"prompt": "Why?", "response_a": "yes", "response_b": "no", "winner": "a", "voter": "ann"}
    rows = [row, {**row, "winner": "b"}, {**row, "voter": None}, {**row, "voter": None}, {**row, "prompt": "How?"}]
    _, metrics = ingest_here(tmp_path, lines(tmp_path, rows))
    assert metrics["repeated_votes"] == 1
