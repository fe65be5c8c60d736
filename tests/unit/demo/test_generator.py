import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from demo.generator import SyntheticPairs, decode_turns, encode_turns, generate_pairs, write_csv
from votes.folds import prompt_group
from votes.schema import TEXTS, WINNERS

ROWS = 3000


@pytest.fixture(scope="module")
def pairs() -> SyntheticPairs:
    return generate_pairs(ROWS, seed=7)


def test_same_arguments_give_the_same_bytes_and_a_short_draw_begins_a_long_one(pairs: SyntheticPairs) -> None:
    again = generate_pairs(1200, seed=7)
    assert again.table.equals(pairs.table.slice(0, 1200))
    assert again.truth.equals(pairs.truth.slice(0, 1200))


def test_streams_and_seeds_are_different_draws_without_common_ids(pairs: SyntheticPairs) -> None:
    for other in (generate_pairs(1000, seed=7, stream="test"), generate_pairs(1000, seed=8)):
        assert not set(pairs.table["id"].to_pylist()) & set(other.table["id"].to_pylist())
        assert pairs.table["response_a"].slice(0, 3) != other.table["response_a"].slice(0, 3)
        for name in TEXTS:
            assert len(set(pairs.table[name].to_pylist()) & set(other.table[name].to_pylist())) < 100
    assert len(set(pairs.table["id"].to_pylist())) == ROWS


def test_votes_follow_the_truth(pairs: SyntheticPairs) -> None:
    one_hot = np.stack([pairs.table[name].to_numpy() for name in WINNERS[:3]], axis=1)
    assert (one_hot.sum(axis=1) == 1).all()
    assert pairs.truth["id"].equals(pairs.table["id"])
    # Each class's votes, and their log loss, lie within four standard errors of what the truth expects.
    truth = pairs.probabilities
    errors = np.sqrt((truth * (1 - truth)).sum(axis=0))
    assert (np.abs(one_hot.sum(axis=0) - truth.sum(axis=0)) < 4 * errors).all()
    entropy = -(truth * np.log(truth)).sum(axis=1)
    spread = np.sqrt(((truth * np.log(truth) ** 2).sum(axis=1) - entropy**2).sum()) / ROWS
    assert pairs.best_log_loss == pytest.approx(entropy.mean())
    assert abs(pairs.truth_log_loss - pairs.best_log_loss) < 4 * spread


def test_difficulty_is_that_of_the_arena(pairs: SyntheticPairs) -> None:
    shares = pairs.probabilities.mean(axis=0)
    assert 0.79 < pairs.best_log_loss < 0.90
    assert 1.08 < -(shares * np.log(shares)).sum() < 1.0987
    assert 0.25 < shares[2] < 0.33


def test_texts_have_the_variety_of_the_arena(pairs: SyntheticPairs) -> None:
    prompts, answers_a, answers_b = ([decode_turns(text) for text in pairs.table[name].to_pylist()] for name in TEXTS)
    assert 0.12 < np.mean([len(turns) > 1 for turns in prompts]) < 0.18
    assert [len(turns) for turns in prompts] == [len(turns) for turns in answers_a] == [len(t) for t in answers_b]
    answers = answers_a + answers_b
    words = [sum(len((turn or "").split()) for turn in turns) for turns in answers]
    assert 60 < np.median(words) < 100
    assert 600 < max(words) < 1700
    for rare in (None, ""):
        assert 0 < np.mean([rare in turns for turns in answers]) < 0.01
    assert 0 < sum(a == b for a, b in zip(answers_a, answers_b, strict=True)) < 0.03 * ROWS
    text = "\n".join(turn for turns in answers for turn in turns if turn)
    for sample in ("é", "ж", "λ", "م", "क", "气", "。", "\U0001f680", "```", "\n- ", "\n## "):
        assert sample in text
    # Near-copies: some prompts differ in their characters only until they are normalised.
    distinct = {tuple(turns) for turns in prompts}
    groups = Counter(prompt_group(turns) for turns in prompts)
    assert len(groups) < len(distinct) - 50
    assert 0.85 * ROWS < len(groups) < 0.96 * ROWS


def test_turns_are_encoded_as_in_the_kaggle_files() -> None:
    turns = ['a/b "c"\n', None, "é"]
    assert encode_turns(turns) == '["a\\/b \\"c\\"\\n",null,"\\u00e9"]'
    assert decode_turns(encode_turns(turns)) == turns


def test_csv_holds_the_table_and_the_test_file_no_votes(pairs: SyntheticPairs, tmp_path: Path) -> None:
    write_csv(pairs, tmp_path / "train.csv", labeled=True)
    with open(tmp_path / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("id", "model_a", "model_b", "prompt", "response_a", "response_b"),
        *("winner_model_a", "winner_model_b", "winner_tie"),
    ]
    expected = [{name: str(value) for name, value in row.items()} for row in pairs.table.to_pylist()]
    assert rows == expected
    assert all(isinstance(json.loads(row["response_a"]), list) for row in rows)

    buffer = io.StringIO()
    write_csv(pairs, buffer, labeled=False)
    assert buffer.getvalue().splitlines()[0] == "id,prompt,response_a,response_b"


def test_no_rows_give_empty_tables_and_negative_ones_an_error() -> None:
    empty = generate_pairs(0, seed=1)
    assert empty.table.num_rows == empty.truth.num_rows == 0
    assert empty.table.schema == generate_pairs(1, seed=1).table.schema
    with pytest.raises(ValueError, match="-1"):
        generate_pairs(-1, seed=1)
