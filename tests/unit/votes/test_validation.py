import pytest

from core.errors import InputError
from votes.validation import InvalidRow, check_columns, to_record

VOTE = {"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}
ROW = {"id": 7, "prompt": '["q1", null]', "response_a": '["a\\/b"]', "response_b": '["\\ud83d\\ude00 \\ud800"]', **VOTE}


def test_json_turns_escapes_nulls_and_surrogates():
    record = to_record({**ROW, "model_a": "m", "model_b": ""}, labeled=True, text_format="auto")
    assert (record.id, record.label, record.model_a, record.model_b) == ("7", 1, "m", None)
    assert (record.prompt, record.response_a) == (["q1", None], ["a/b"])
    assert record.response_b == ["\U0001f600 \ufffd"]


def test_test_rows_take_neither_labels_nor_models():
    record = to_record({**ROW, "model_a": "m"}, labeled=False, text_format="auto")
    assert record.label is None
    assert record.model_a is None


@pytest.mark.parametrize("answer", ["[1, 2, 3] are numbers", "[1, 2]", "plain", "", "[edit] {x}", "[]"])
def test_plain_text_stays_plain(answer):
    row = {**ROW, "prompt": "a question", "response_a": answer, "response_b": '["looks like a list"]'}
    record = to_record(row, labeled=True, text_format="auto")
    assert record.prompt == ["a question"]
    assert record.response_a == [answer]
    assert record.response_b == ['["looks like a list"]']


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_text_beside_lists_is_an_empty_turn(empty):
    record = to_record({**ROW, "response_b": empty}, labeled=True, text_format="auto")
    assert (record.prompt, record.response_a, record.response_b) == (["q1", None], ["a/b"], [""])
    with pytest.raises(InvalidRow, match="response_b is not a JSON list"):
        to_record({**ROW, "response_b": empty}, labeled=True, text_format="json")


def test_plain_format_never_parses_and_json_format_always_does():
    assert to_record(ROW, labeled=True, text_format="plain").prompt == ['["q1", null]']
    with pytest.raises(InvalidRow, match="prompt is not a JSON list"):
        to_record({**ROW, "prompt": "text"}, labeled=True, text_format="json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "missing id"),
        ({"id": " "}, "missing id"),
        ({"id": 1.5e9}, "floating-point"),
        ({"prompt": None}, "missing prompt"),
        ({"response_a": 5}, "response_a is neither text"),
        ({"response_a": '["cut off'}, "response_a is not a JSON list"),
        ({"response_b": ["a", 1]}, "response_b is not a JSON list"),
        ({"winner_model_b": "0"}, "no winner"),
        ({"winner_tie": "1"}, "more than one winner"),
        ({"winner_tie": "yes"}, "winner_tie is neither 0 nor 1"),
        ({"winner_model_a": None}, "winner_model_a is neither 0 nor 1"),
    ],
)
def test_invalid_rows_say_why(change, reason):
    with pytest.raises(InvalidRow, match=reason):
        to_record({**ROW, **change}, labeled=True, text_format="auto")


def test_missing_columns_are_named_with_the_nearest_found():
    with pytest.raises(InputError) as caught:
        check_columns(["id", "promt", "response_a", "response_b", *VOTE], "votes.csv", labeled=True)
    assert "missing column prompt" in str(caught.value)
    assert "rename 'promt'" in str(caught.value)
    with pytest.raises(
        InputError, match=r"must name id, prompt, response_a, response_b. The columns are 'id', 'prompt'"
    ):
        check_columns(["id", "prompt", "response_a"], "votes.csv", labeled=False)
