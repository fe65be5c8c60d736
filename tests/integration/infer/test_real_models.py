"""Scoring of 200 real records at 512 tokens, against transformers on the same token ids."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from core.registry import MODES
from infer.scoring.job import ScoringJob
from tests.helpers.swap import swap_records
from tests.helpers.tables import real_records
from tests.helpers.tiny_llms import MAX_TOKENS, make_checkpoint
from tests.integration.infer.test_isolation import pack, reference, score, scoring_job
from votes.swap import swap_average, swap_probabilities

pytest.importorskip("vllm", reason="scoring with language models is an extra")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]
ROWS = 200
CLOSE = 1e-4


def both_orders(packed: pa.Table, job: ScoringJob) -> list[np.ndarray]:
    came = {one.file: one for one in score({"real": packed}, job)}
    assert not any(reason for one in came.values() for reason in one.reasons)
    return [came[f"real-{swapped}"].probabilities for swapped in (False, True)]


@pytest.mark.parametrize("architecture", ["Gemma2", "Llama"])
def test_a_head_gives_transformers_probabilities_and_its_mean_over_orders_is_antisymmetric(
    architecture: str, tmp_path
) -> None:
    model = make_checkpoint(tmp_path, architecture)
    records = real_records(ROWS)
    packed, exchanged = pack(model, records), pack(model, swap_records(records))
    job = scoring_job(model)
    ours = both_orders(packed, job)
    for found, column in zip(ours, ("ab", "ba"), strict=True):
        np.testing.assert_allclose(found, reference(model, packed, column), atol=CLOSE)
    assert max(len(ids) for ids in packed["ab"].to_pylist()) == pytest.approx(MAX_TOKENS, abs=10)
    assert np.abs(ours[0] - swap_probabilities(ours[1])).max() > 0.01, "the model must care about the order"
    theirs = both_orders(exchanged, job)
    np.testing.assert_allclose(swap_average(*theirs), swap_probabilities(swap_average(*ours)), atol=1e-6)


@pytest.mark.parametrize("architecture", ["Gemma2", "Llama"])
def test_a_judge_gives_transformers_softmax_over_the_answers_tokens(architecture: str, tmp_path) -> None:
    from transformers import AutoTokenizer

    model = make_checkpoint(tmp_path, architecture, "ForCausalLM")
    packed = pack(model, real_records(ROWS), judge=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    mode = MODES.get("judge")
    answers = mode.answer_ids(tokenizer, mode.frame(tokenizer))
    ours = both_orders(packed, dataclasses.replace(scoring_job(model, mode="judge"), answer_ids=answers))
    for found, column in zip(ours, ("ab", "ba"), strict=True):
        np.testing.assert_allclose(found, reference(model, packed, column, answers), atol=CLOSE)
