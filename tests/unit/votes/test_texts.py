"""Rows of the Kaggle shape, and the texts in them."""

import pytest

from core.registry import FORMATS
from votes.comparison import InvalidRow
from votes.format import Reading
from votes.recognition import file_kind
from votes.schema import TEXTS
from votes.texts import likely_kind

VOTE = {"winner_model_a": "0", "winner_model_b": "1", "winner_tie": "0"}
ROW = {"id": 7, "prompt": '["q1", null]', "response_a": '["a\\/b"]', "response_b": '["x", null]', **VOTE}


def read(row, **reading):
    (comparison,) = FORMATS.get("kaggle").comparisons(row, Reading(**reading))
    return comparison


def texts(comparison):
    return comparison.prompt, comparison.response_a, comparison.response_b


def test_lists_escapes_nulls_and_models():
    comparison = read({**ROW, "model_a": "m", "model_b": ""})
    assert (comparison.id, comparison.model_a, comparison.model_b) == ("7", "m", None)
    assert texts(comparison) == (["q1", None], ["a/b"], ["x", None])
    assert [vote.shares for vote in comparison.votes] == [{"b": 1.0}]


@pytest.mark.parametrize(
    "cell",
    [
        '["q1", null]',
        "['q1', None]",
        '["q1", None]',
        "['q1' None]",
        "['q1'\n None]",
        "array(['q1', None], dtype=object)",
    ],
)
def test_lists_of_every_dialect_are_lists(cell):
    assert read({**ROW, "prompt": cell}).prompt == ["q1", None]


def test_escapes_of_python_and_texts_side_by_side():
    row = {**ROW, "prompt": r"""['it\'s' "a \"b\"\n" 'c, d']"""}
    assert read(row).prompt == ["it's", 'a "b"\n', "c, d"]
    # What is no list of texts is not evaluated.
    call = "[__import__('os').getcwd()]"
    assert read({**ROW, "prompt": call, "response_a": "x", "response_b": "y"}).prompt == [call]


def test_pairs_to_score_have_no_votes():
    assert read(ROW, labeled=False).votes == ()


@pytest.mark.parametrize("answer", ["[1, 2, 3] are numbers", "[1, 2]", "plain", "", "[edit] {x}", "[]"])
def test_plain_text_stays_plain(answer):
    row = {**ROW, "prompt": "a question", "response_a": answer, "response_b": '["looks like a list"]'}
    for kind in ("plain", "lists"):
        assert texts(read(row, kind=kind)) == (["a question"], [answer], ['["looks like a list"]'])


def test_the_kind_of_texts_is_that_of_most_rows():
    plain = {"prompt": "q", "response_a": "a", "response_b": '["b"]'}
    assert kind_of(ROW, ROW, plain) == "lists"
    assert kind_of(ROW, plain, plain) == "plain"
    assert kind_of({"prompt": "", "response_a": "", "response_b": ""}) == "plain"


def kind_of(*rows):
    return file_kind([[row[name] for name in TEXTS] for row in rows])


MESSAGES = '[{"role": "assistant", "content": "a0"}]'


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("q0", MESSAGES),
        ("q0", '["a0"]'),
        ('[{"role": "user", "content": "q0"}]', "a0"),
        ('[{"role": "user", "content": "q0"}]', MESSAGES),
    ],
)
def test_a_plain_text_may_stand_beside_messages_and_single_turns(prompt, answer):
    row = {**ROW, "prompt": prompt, "response_a": answer, "response_b": answer}
    assert kind_of(row) == likely_kind([row[name] for name in TEXTS]) == "lists"
    assert texts(read(row)) == (["q0"], ["a0"], ["a0"])


@pytest.mark.parametrize("answer", ['["a", "b"]', "[1, 2]", "[draft] a"])
def test_answers_that_are_lists_of_several_texts_do_not_make_a_prompt_a_list(answer):
    row = {**ROW, "prompt": "write a list", "response_a": answer, "response_b": answer}
    assert kind_of(row) == likely_kind([row[name] for name in TEXTS]) == "plain"


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_text_beside_lists_is_an_empty_turn(empty):
    assert texts(read({**ROW, "response_b": empty})) == (["q1", None], ["a/b"], [""])


def test_plain_texts_are_never_parsed_and_lists_must_be_if_reading_is_strict():
    assert read(ROW, kind="plain").prompt == ['["q1", null]']
    with pytest.raises(InvalidRow, match="prompt is not a list of texts"):
        read({**ROW, "prompt": "text"}, strict=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": 1.5e9}, "floating-point"),
        ({"id": b"\xff\xfe"}, "neither UTF-8 nor the 16 bytes of a UUID"),
        ({"prompt": None}, "missing prompt"),
        ({"response_a": 5}, "response_a is neither text"),
        ({"response_a": '["cut off'}, "response_a is not a list of texts"),
        ({"response_b": ["a", 1]}, "response_b is not a list of texts"),
        ({"winner_model_b": "0"}, "no winner"),
        ({"winner_tie": "1"}, "more than one winner"),
        ({"winner_tie": "yes"}, "winner_tie is neither 0 nor 1"),
        ({"winner_tie": "0.5"}, "do not sum to 1"),
        ({"winner_model_a": None}, "winner_model_a is neither 0 nor 1"),
    ],
)
def test_invalid_rows_say_why(change, reason):
    with pytest.raises(InvalidRow, match=reason):
        read({**ROW, **change})


@pytest.mark.parametrize("broken", ['["never closed', "[{'role': 'user', 'content': 'cut"])
def test_a_prompt_that_was_cut_off_is_no_plain_text(broken):
    for answer in ('["a"]', MESSAGES):
        with pytest.raises(InvalidRow, match="prompt is not a list of texts"):
            read({**ROW, "prompt": broken, "response_a": answer, "response_b": answer})


def test_an_answer_beside_messages_may_look_like_a_list():
    row = {**ROW, "prompt": '[{"role": "user", "content": "q"}]', "response_a": '["a", "b"]', "response_b": "plain"}
    assert texts(read(row)) == (["q"], ['["a", "b"]'], ["plain"])
