import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.llm_requests import (
    ANSWERS,
    ORDERS,
    Packed,
    entropy,
    least_sure,
    read_answers,
    read_packed,
    tempered,
    units,
)
from ray_jobs.records import Records
from ray_jobs.storage import Folder

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


def test_each_request_is_in_one_unit_and_those_of_the_first_order_do_not_depend_on_the_second(packed):
    found, records = packed
    first = units(found, records, everything(False), "shards", "model")
    both = units(found, records, everything(True), "shards", "model")
    asked = np.concatenate([unit.requests for unit in both])
    assert sorted(asked) == list(range(7))
    assert [(u.file, u.fingerprint) for u in both[: len(first)]] == [(u.file, u.fingerprint) for u in first]
    assert {unit.file for unit in both[len(first) :]} == {"shards/ba/train/part-0", "shards/ba/test/part-0"}
    for unit in both:
        split, _, _ = unit.shard.partition("/")
        start = 3 if unit.shard == "train/part-1" else 0
        numbers = found.requests[split][start + unit.rows, int(unit.swapped)]
        assert (numbers == unit.requests).all()
    assert units(found, records, everything(True), "shards", "other")[0].fingerprint != both[0].fingerprint


def test_answers_come_back_by_number_with_the_reasons_of_those_that_failed(packed, tmp_path):
    found, records = packed
    asked = units(found, records, everything(True), "shards", "model")
    folder = Folder(f"{tmp_path}/predictions")
    for unit in asked:
        n = len(unit.requests)
        values = {"p_a": unit.requests / 10, "p_b": np.full(n, np.nan), "p_tie": np.zeros(n)}
        table = {"request": unit.requests, **values, "reason": ["", *["bad"] * (n - 1)], "seconds": np.full(n, 0.5)}
        folder.write_table(unit.file, pa.table(table).cast(ANSWERS))
    answers = read_answers(folder, asked, 7)
    assert np.allclose(answers.probabilities[:, 0], np.arange(7) / 10)
    assert answers.seconds == 3.5
    assert set(answers.reasons) == {int(n) for unit in asked for n in unit.requests[1:]}
    assert answers.failed == [unit.file for unit in asked if len(unit.requests) > 1]


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
    assert tempered(softmax(logits), 1.0) is not None
