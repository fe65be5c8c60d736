import numpy as np
import pyarrow as pa
import pytest

from core.storage import Folder
from infer.scoring.requests import (
    ORDERS,
    RequestIndex,
    apply_temperature,
    deduplicate_requests,
    prediction_entropy,
    read_replies,
    reply_files,
    reply_schema,
    request_shards,
    select_most_uncertain,
)
from votes.records import Records

SCHEMA = reply_schema(pa.binary(16))
# By split and shard, the texts of both orders; equal letters are equal texts.
TEXTS = {
    "train/part-0": [("a", "A"), ("b", "B"), ("a", "A")],
    "train/part-1": [("B", "b"), ("c", "c")],  # a record whose second order is another's first
    "test/part-0": [("c", "c"), ("d", "D")],
}


@pytest.fixture
def indexed(tmp_path) -> tuple[RequestIndex, Records]:
    tokens = Folder(f"{tmp_path}/tokens")
    rows = {"train": 5, "test": 2}
    records = Records(
        Folder(f"{tmp_path}/records"), {"rows": rows, "metrics": {}, "shards": {k: len(v) for k, v in TEXTS.items()}}
    )
    for shard, both in TEXTS.items():
        table = {
            f"{order}_hash": pa.array([text[n].encode() * 16 for text in both], pa.binary(16))
            for n, order in enumerate(ORDERS)
        }
        tokens.write_table(shard, pa.table({**table, "tokens": [ord(text[0].lower()) for text in both]}))
    return deduplicate_requests(tokens, records), records


def everything(second: bool) -> dict[str, np.ndarray]:
    return {split: np.repeat([[True, second]], rows, axis=0) for split, rows in (("train", 5), ("test", 2))}


def test_equal_texts_share_a_request_whatever_order_and_split_they_are_in(indexed):
    index, _ = indexed
    assert len(index.token_counts) == 7  # a A b B c d D
    numbers = index.numbers
    assert (numbers["train"][0] == numbers["train"][2]).all()
    assert (numbers["train"][3] == numbers["train"][1][::-1]).all()
    assert numbers["train"][4][0] == numbers["train"][4][1] == numbers["test"][0][0]
    assert index.token_counts[numbers["test"][1][1]] == ord("d")
    assert index.count(everything(True)) == (7, 2 * ord("a") + 2 * ord("b") + ord("c") + 2 * ord("d"))
    assert index.count(everything(False))[0] == 5  # a b B c d


def nothing(index: RequestIndex) -> np.ndarray:
    return np.zeros(len(index.texts), bool)


def test_each_request_is_in_one_shard_and_what_is_answered_in_none(indexed):
    index, records = indexed
    both = request_shards(index, records, everything(True), nothing(index), "shards")
    asked = np.concatenate([shard.requests for shard in both])
    assert sorted(asked) == list(range(7))
    assert {shard.file for shard in both if shard.swapped} == {"shards/ba/train/part-0", "shards/ba/test/part-0"}
    for shard in both:
        split, _, _ = shard.packed_shard.partition("/")
        start = 3 if shard.packed_shard == "train/part-1" else 0
        numbers = index.numbers[split][start + shard.rows, int(shard.swapped)]
        assert (numbers == shard.requests).all()
    first = request_shards(index, records, everything(False), nothing(index), "shards")
    answered = np.isin(np.arange(7), np.concatenate([shard.requests for shard in first]))
    rest = request_shards(index, records, everything(True), answered, "shards")
    assert all(shard.swapped for shard in rest)
    assert sum(len(shard.requests) for shard in rest) == 7 - answered.sum()


def test_replies_belong_to_texts_whatever_the_records_are_now(indexed, tmp_path):
    index, _ = indexed
    folder = Folder(f"{tmp_path}/predictions")
    texts = pa.concat_arrays([index.texts.slice(2, 3), pa.array([b"?" * 16], pa.binary(16))])  # one is of no record now
    values = {"p_a": [0.2, 0.4, np.nan, 0.9], "p_b": [0.1] * 4, "p_tie": [0.0] * 4}
    table = {"text": texts, **values, "reason": ["", "", "bad", ""], "seconds": np.full(4, 0.5)}
    folder.write_table("shards/ab/train/part-0", pa.table(table).cast(SCHEMA), "model")
    folder.write_table("shards/ab/train/part-1", pa.table(table).cast(SCHEMA), "another")
    folder.write_table("shards/fold-1/ab/train/part-0", pa.table(table).cast(SCHEMA), "model")
    assert reply_files(folder, "shards", "model") == ["shards/ab/train/part-0"]
    replies = read_replies(folder, index, "shards", "model")
    assert replies.probabilities[2:4, 0].tolist() == [0.2, 0.4]
    assert np.isnan(replies.probabilities[[0, 1, 4, 5, 6], 0]).all()
    assert replies.reasons == {4: "bad"}
    assert replies.seconds.tolist() == [0, 0, 0.5, 0.5, 0.5, 0, 0]
    assert np.flatnonzero(replies.answered(failed_too=False)).tolist() == [2, 3]
    assert np.flatnonzero(replies.answered(failed_too=True)).tolist() == [2, 3, 4]


@pytest.mark.parametrize("order", [1, -1])
def test_an_answer_counts_wherever_else_its_text_failed(indexed, tmp_path, order):
    index, _ = indexed
    folder = Folder(f"{tmp_path}/predictions")
    for number, (value, reason) in enumerate([(0.2, ""), (np.nan, "bad")][::order]):
        values = {"p_a": [value], "p_b": [value], "p_tie": [value]}
        table = {"text": index.texts.slice(2, 1), **values, "reason": [reason], "seconds": [0.5]}
        folder.write_table(f"shards/ab/train/part-{number}", pa.table(table).cast(SCHEMA), "model")
    replies = read_replies(folder, index, "shards", "model")
    assert replies.probabilities[2, 0] == 0.2
    assert replies.reasons == {}
    assert replies.seconds[2] == 1


def test_the_least_sure_are_exactly_the_share_asked_for():
    probabilities = np.array([[1, 0, 0], [0.4, 0.3, 0.3], [np.nan] * 3, [0.5, 0.5, 0], [0.34, 0.33, 0.33]])
    assert select_most_uncertain(probabilities, 0.5).tolist() == [False, True, False, False, True]
    assert select_most_uncertain(np.full((10, 3), 1 / 3), 0.33).sum() == 3, "equal ones are taken in their order"
    assert np.isclose(prediction_entropy(probabilities[[0, 3]]), [0, np.log(2)]).all()


def test_a_temperature_divides_the_logits():
    logits = np.random.default_rng(0).normal(size=(20, 3))

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    assert np.allclose(apply_temperature(softmax(logits), 2.5), softmax(logits / 2.5))
    assert np.isfinite(apply_temperature(softmax(logits), 0.0005)).all()
