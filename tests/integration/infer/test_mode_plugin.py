"""A scoring mode in one file of its own scores through real vLLM engines, on Ray's workers too."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import ROOT, environment
from tests.helpers.tiny_llms import BALLOT, MAX_TOKENS, make_checkpoint
from tests.helpers.votes import COLUMNS, vote, write_votes
from tests.integration.infer.test_isolation import ATOL, reference
from votes import predictions

pytestmark = pytest.mark.slow
ROWS = 40


def test_a_mode_in_one_file_scores_through_vllm(tmp_path):
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    from transformers import AutoTokenizer

    judge = make_checkpoint(tmp_path / "model", "Llama", "ForCausalLM")
    (tmp_path / "ballot.py").write_text(BALLOT)
    rows = [vote(n) for n in range(ROWS)]
    write_votes(tmp_path / "train.csv", rows)
    write_votes(tmp_path / "test.csv", rows[:5], [COLUMNS[0], *COLUMNS[3:6]])
    (tmp_path / "config.yaml").write_text(
        f"run: {tmp_path}/run\n"
        f"llms: [{{name: voter, mode: ballot, checkpoint: {judge}, max_tokens: {MAX_TOKENS}, swap: none}}]\n"
        f"data: {{folds: 2, train: {tmp_path}/train.csv, test: {tmp_path}/test.csv}}\n"
    )
    options = ["--config", str(tmp_path / "config.yaml"), "--plugin", str(tmp_path / "ballot.py")]
    for job in ("ingest", "score_llm"):
        line = [sys.executable, "-m", f"ray_jobs.{job}", *options]
        done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    packed = pq.read_table(tmp_path / "run/tokens/voter/train")
    tokenizer = AutoTokenizer.from_pretrained(judge)
    assert "Vote X for Response A" in tokenizer.decode(packed["ab"][0].as_py())
    answers = tuple(tokenizer.encode(answer, add_special_tokens=False)[0] for answer in "XYZ")
    table = pq.read_table(tmp_path / "run/predictions/voter/train.parquet")
    assert table["id"].to_pylist() == packed["id"].to_pylist()
    scored = predictions.probabilities_from_table(table)
    np.testing.assert_allclose(scored, reference(judge, pa.table(packed), "ab", answers), atol=ATOL)
    assert scored.std(axis=0).max() > 0.01, "records must differ for this to mean anything"
