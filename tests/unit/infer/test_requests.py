import numpy as np
import pyarrow as pa
import pytest

from core.storage import Folder
from infer.scoring.requests import (
    ANSWERS,
    ORDERS,
    Packed,
    answer_files,
    entropy,
    least_sure,
    read_answers,
    read_packed,
    tempered,
    units,
)
from votes.records import Records

# By split and shard, the texts of both orders; equal letters are equal texts.
TEXTS = {
    "train/part-0": [("a", "A"), ("b", "B"), ("a", "A")],
    "train/part-1": [("B", "b"), ("c", "c")],  # a record whose second order is another's first
    "test/part-0": [("c", "c"), ("d", "D")],
}


@pytest.fixture
def packed(tmp_path) -> tuple[Packed, Records]:
    tokens = Folder(f"{tmp_path}/tokens")
    rows = {"train": 5, "test": 2}
    records = Records(Folder(f"{tmp_path}/records"), {"rows": rows, "shards": {k: len(v) for k, v in TEXTS.items()}})
    for shard, both in TEXTS.items():
        table = {
            f"{order}_hash": pa.array([text[n].encode() * 16 for text in both], pa.binary(16))
            for n, order in enumerate(ORDERS)
        }
        tokens.write_table(shard, pa.table({**table, "tokens": [ord(text[0].lower()) for text in both]}))
    return read_packed(tokens, records), records


def everything(second: bool) -> dict[str, np.ndarray]:
    return {split: np.repeat([[True, second]], rows, axis=0) for split, rows in (("train", 5), ("test", 2))}


def test_equal_texts_share_a_request_whatever_order_and_split_they_are_in(packed):
    found, _ = packed
    assert len(found.tokens) == 7  # a A b B c d D
    numbers = found.requests
    assert (numbers["train"][0] == numbers["train"][2]).all()
    assert (numbers["train"][3] == numbers["train"][1][::-1]).all()
    assert numbers["train"][4][0] == numbers["train"][4][1] == numbers["test"][0][0]
    assert found.tokens[numbers["test"][1][1]] == ord("d")
    assert found.count(everything(True)) == (7, 2 * ord("a") + 2 * ord("b") + ord("c") + 2 * ord("d"))
    assert found.count(everything(False))[0] == 5  # a b B c d


def nothing(packed: Packed) -> np.ndarray:
    return np.zeros(len(packed.texts), bool)


def test_each_request_is_in_one_unit_and_what_is_answered_in_none(packed):
    found, records = packed
    both = units(found, records, everything(True), nothing(found), "shards")
    asked = np.concatenate([unit.requests for unit in both])
    assert sorted(asked) == list(range(7))
    assert {unit.file for unit in both if unit.swapped} == {"shards/ba/train/part-0", "shards/ba/test/part-0"}
    for unit in both:
        split, _, _ = unit.shard.partition("/")
        start = 3 if unit.shard == "train/part-1" else 0
        numbers = found.requests[split][start + unit.rows, int(unit.swapped)]
        assert (numbers == unit.requests).all()
    first = units(found, records, everything(False), nothing(found), "shards")
    answered = np.isin(np.arange(7), np.concatenate([unit.requests for unit in first]))
    rest = units(found, records, everything(True), answered, "shards")
    assert all(unit.swapped for unit in rest)
    assert sum(len(unit.requests) for unit in rest) == 7 - answered.sum()


def test_answers_belong_to_texts_whatever_the_records_are_now(packed, tmp_path):
    found, _ = packed
    folder = Folder(f"{tmp_path}/predictions")
    texts = pa.concat_arrays([found.texts.slice(2, 3), pa.array([b"?" * 16], pa.binary(16))])  # one is of no record now
    values = {"p_a": [0.2, 0.4, np.nan, 0.9], "p_b": [0.1] * 4, "p_tie": [0.0] * 4}
    table = {"text": texts, **values, "reason": ["", "", "bad", ""], "seconds": np.full(4, 0.5)}
    folder.write_table("shards/ab/train/part-0", pa.table(table).cast(ANSWERS), "model")
    folder.write_table("shards/ab/train/part-1", pa.table(table).cast(ANSWERS), "another")
    folder.write_table("shards/fold-1/ab/train/part-0", pa.table(table).cast(ANSWERS), "model")
    assert answer_files(folder, "shards", "model") == ["shards/ab/train/part-0"]
    answers = read_answers(folder, found, "shards", "model")
    assert answers.probabilities[2:4, 0].tolist() == [0.2, 0.4]
    assert np.isnan(answers.probabilities[[0, 1, 4, 5, 6], 0]).all()
    assert answers.reasons == {4: "bad"}
    assert answers.seconds.tolist() == [0, 0, 0.5, 0.5, 0.5, 0, 0]
    assert np.flatnonzero(answers.answered(failed_too=False)).tolist() == [2, 3]
    assert np.flatnonzero(answers.answered(failed_too=True)).tolist() == [2, 3, 4]


@pytest.mark.parametrize("order", [1, -1])
def test_an_answer_counts_wherever_else_its_text_failed(packed, tmp_path, order):
    found, _ = packed
    folder = Folder(f"{tmp_path}/predictions")
    for number, (value, reason) in enumerate([(0.2, ""), (np.nan, "bad")][::order]):
        values = {"p_a": [value], "p_b": [value], "p_tie": [value]}
        table = {"text": found.texts.slice(2, 1), **values, "reason": [reason], "seconds": [0.5]}
        folder.write_table(f"shards/ab/train/part-{number}", pa.table(table).cast(ANSWERS), "model")
    answers = read_answers(folder, found, "shards", "model")
    assert answers.probabilities[2, 0] == 0.2
    assert answers.reasons == {}
    assert answers.seconds[2] == 1


def test_the_least_sure_are_exactly_the_share_asked_for():
    probabilities = np.array([[1, 0, 0], [0.4, 0.3, 0.3], [np.nan] * 3, [0.5, 0.5, 0], [0.34, 0.33, 0.33]])
    assert least_sure(probabilities, 0.5).tolist() == [False, True, False, False, True]
    assert least_sure(np.full((10, 3), 1 / 3), 0.33).sum() == 3, "equal ones are taken in their order"
    assert np.isclose(entropy(probabilities[[0, 3]]), [0, np.log(2)]).all()


def test_a_temperature_divides_the_logits():
    logits = np.random.default_rng(0).normal(size=(20, 3))

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    assert np.allclose(tempered(softmax(logits), 2.5), softmax(logits / 2.5))
    assert np.isfinite(tempered(softmax(logits), 0.0005)).all()
