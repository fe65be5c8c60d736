"""Compare our scoring with a plain transformers loop over padded batches in input order.

Run as: python -m benchmarks.llm_score --votes votes.csv
(500 records at --max-tokens 2048 took 54 minutes on 2 slow cores, most of them for the plain loop, plus the third
process; --rows 500 2000 shows the growth of time, --layers 2 is a smaller model)

Both sides score the same records, packed to the same token ids, in one order. They use the same random Llama (about 100
million parameters) in float32 on the same cores. The plain loop has batches of 8, padded to their longest. Start-up is
excluded on both sides: our time is that of all records minus that of 8 short ones, after imports. A third process sends
the same requests to vLLM's engine alone and times its forward passes. The rest of our time is overhead. A number of
rows may be given more than once (500 2000 500). The growth is estimated from the mean of its times.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.featurize import ROOT
from benchmarks.search import VOTES
from core.settings.llm import Llm
from featurize.tokens.packing import Packer
from infer.scoring.isolation import IsolationCallbacks
from infer.scoring.job import ScoringJob, retry_levels
from infer.scoring.vllm_engine import engine_environment, engine_options
from votes.schema import TEXTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REAL = ("kaggle1000.csv", "arena33k_sample.csv", "autoj_pairwise.csv", "tulu1_human_eval.csv")
BATCH = 8
FEW = 8  # requests
TOKENS = "tokens.parquet"
OURS, PLAINS = "ours.npy", "plain.npy"  # probabilities (n, 3)
SHARD_ROWS = 256

PLAIN = """
import json, sys, time
import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSequenceClassification

model, data, threads, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
rows = pq.read_table(data)["ab"].to_pylist()
pad = network.config.pad_token_id
tokens = padded = 0
answers = []
with torch.no_grad():
    network(torch.tensor([rows[0][:64]]))
    started = time.perf_counter()
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        longest = max(map(len, batch))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])
        logits = network(input_ids=ids, attention_mask=(ids != pad).long()).logits
        answers += torch.softmax(logits.double(), dim=1).tolist()
        tokens += sum(map(len, batch))
        padded += ids.numel()
seconds = time.perf_counter() - started
np.save(sys.argv[5], np.array(answers))
print(json.dumps({"seconds": seconds, "tokens": tokens, "padding": 1 - tokens / padded}))
"""

ENGINE = """
import json, sys, time
import pyarrow.parquet as pq
from vllm import LLM
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

model, data, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
passes = {"seconds": 0.0, "passes": 0}
execute = GPUModelRunner.execute_model

def timed(self, *args, **kwargs):
    started = time.perf_counter()
    try:
        return execute(self, *args, **kwargs)
    finally:
        passes["seconds"] += time.perf_counter() - started
        passes["passes"] += 1

GPUModelRunner.execute_model = timed
llm = LLM(model=model, runner="pooling", convert="classify", **options)
rows = pq.read_table(data)["ab"].to_pylist()
prompts = [{"prompt_token_ids": row} for row in sorted(rows, key=len, reverse=True)]
llm.classify(prompts[-8:], use_tqdm=False)
passes.update(seconds=0.0, passes=0)
started = time.perf_counter()
llm.classify(prompts, use_tqdm=False)
print(json.dumps({"seconds": time.perf_counter() - started, "forward": passes["seconds"], "passes": passes["passes"]}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--votes", nargs="+", default=[str(VOTES.parent / name) for name in REAL])
    parser.add_argument("--rows", type=int, nargs="+", default=[500])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-ours", action="store_true", help="measure only our side")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("result", json.dumps(_ours(Path(options.child), options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = _make_model(folder / "model", options.layers, options.votes)
        print(f"a random Llama of {parameters / 1e6:.0f} million parameters, at most {options.max_tokens} tokens")
        seconds: dict[int, list[float]] = {}
        tokens = {}
        for rows in options.rows:
            tokens[rows] = pack_votes(options.votes, rows, folder / "model", folder / TOKENS, options.max_tokens)
            seconds.setdefault(rows, []).append(_compare(folder, rows, tokens[rows], options))
        first = options.rows[0]
        for rows in seconds.keys() - {first}:
            print(
                f"{rows / first:g} times the records, {tokens[rows] / tokens[first]:.2f} times the tokens, take "
                f"{np.mean(seconds[rows]) / np.mean(seconds[first]):.2f} times the time of ours"
            )


def _compare(folder: Path, rows: int, tokens: int, options: argparse.Namespace) -> float:
    line = [sys.executable, "-m", "benchmarks.llm_score", "--child", str(folder), "--threads", str(options.threads)]
    line += ["--max-tokens", str(options.max_tokens)]
    ours = _result(line)
    print(f"{rows} records, {tokens:,} tokens")
    print(f"ours   {rows / ours['seconds']:8.2f} records/s  {tokens / ours['seconds']:8,.0f} tokens/s")
    if options.only_ours:
        return float(ours["seconds"])
    model, data = str(folder / "model"), str(folder / TOKENS)
    plain = _result([sys.executable, "-c", PLAIN, model, data, str(options.threads), str(BATCH), str(folder / PLAINS)])
    print(
        f"plain  {rows / plain['seconds']:8.2f} records/s  {tokens / plain['seconds']:8,.0f} tokens/s, "
        f"{plain['padding']:.1%} of the computed tokens are padding"
    )
    difference = np.abs(np.load(folder / OURS) - np.load(folder / PLAINS)).max()
    print(f"ratio  {plain['seconds'] / ours['seconds']:8.2f}, probabilities differ by at most {difference:.1g}")
    job = _job(folder, options)
    alone = _result(
        [sys.executable, "-c", ENGINE, model, data, json.dumps(engine_options(job, retry_levels(job.llm)[0]))],
        engine_environment(job),
    )
    print(
        f"engine {rows / alone['seconds']:8.2f} records/s alone, with {alone['forward']:.1f} s in {alone['passes']} "
        f"forward passes; of our {ours['seconds']:.1f} s {1 - alone['forward'] / ours['seconds']:.1%} were overhead"
    )
    return float(ours["seconds"])


def _result(line: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        line, check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ | (environment or {})
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1].removeprefix("result "))
    return result


def train_tokenizer(votes: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 32,000 tokens, learned from the votes' texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = (text for row in _rows(votes) for text in (row["prompt"], row["response_a"], row["response_b"]))
    bpe.train_from_iterator(texts, vocab_size=32_000, special_tokens=["<s>", "<pad>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<s>", pad_token="<pad>")


def _make_model(folder: Path, layers: int, votes: list[str]) -> int:
    """Write a Llama with random weights and a head, and a tokenizer learned from the votes; return its parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = train_tokenizer(votes)
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=layers,
            num_attention_heads=12,
            num_key_value_heads=12,
            max_position_embeddings=4096,
            num_labels=3,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _rows(votes: list[str]) -> list[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)
    records: list[dict[str, str]] = []
    for path in votes:
        with open(path, newline="", encoding="utf-8") as file:
            records += csv.DictReader(file)
    return records


def pack_votes(votes: list[str], rows: int, tokenizer: Path, file: Path, max_tokens: int) -> int:
    """Write the first records' token ids, in input order, as score_shards reads them; return their number."""
    from transformers import AutoTokenizer

    packer = Packer(AutoTokenizer.from_pretrained(tokenizer), max_tokens)
    records = _rows(votes)
    if len(records) < rows:
        raise SystemExit(f"{', '.join(votes)} have {len(records)} votes, not {rows}")
    ids = [packer.pack(*(json.loads(row[name]) for name in TEXTS)) for row in records[:rows]]
    column = pa.array(ids, pa.list_(pa.int32()))
    pq.write_table(pa.table({"ab": column, "ba": column, "reason": [""] * rows}), file)
    return sum(map(len, ids))


def _job(folder: Path, options: argparse.Namespace) -> ScoringJob:
    model = str(folder / "model")
    return ScoringJob(
        Llm(name="model", checkpoint=model, max_tokens=options.max_tokens, cpus_per_worker=options.threads), model
    )


def _ours(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the seconds of all records minus those of a few short ones, each with new engines; save the probabilities.

    The few are scored twice, since the first time includes one-time costs (imports, files read from disk).
    """
    import ray

    ray.init(address="local", num_cpus=options.threads, include_dashboard=False, log_to_driver=False)
    file, job = folder / TOKENS, _job(folder, options)
    order = np.argsort(token_counts(file), kind="stable")
    short = np.sort(order[:FEW])
    _, (few, _), (every, answers) = (score(file, job, rows) for rows in (short, short, np.arange(len(order))))
    np.save(folder / OURS, answers)
    return {"seconds": every - few}


def token_counts(file: Path) -> npt.NDArray[np.int32]:
    """Return the lengths (n,) of the requests in a file of `pack_votes`."""
    column = pq.read_table(file, columns=["ab"])["ab"].combine_chunks()
    return np.asarray(column.value_lengths().to_numpy(), np.int32)


def score(
    file: Path,
    job: ScoringJob,
    rows: npt.NDArray[np.int64],
    on_reply: Callable[[int, int], None] = lambda requests, tokens: None,
) -> tuple[float, npt.NDArray[np.float64]]:
    """Score these rows (ascending) of a file of `pack_votes`; return the seconds and the probabilities (len(rows), 3).

    `on_reply` is that of `infer.scoring.isolation.IsolationCallbacks`. Raises RuntimeError if a request fails.
    """
    from infer.scoring.isolation import score_shards
    from infer.scoring.requests import RequestShard
    from infer.scoring.streaming import RequestStream
    from infer.scoring.vllm_engine import vllm_engines

    lengths = token_counts(file)
    shards = []
    for part in np.array_split(rows, max(1, len(rows) // SHARD_ROWS)):
        part = part[np.argsort(-lengths[part], kind="stable")]
        shards.append(RequestShard(str(part[0]), file.name, part.astype(np.int32), False, part))
    answers = np.full((len(rows), 3), np.nan)
    started = time.perf_counter()
    ask = RequestStream(job, functools.partial(_read, file.parent), vllm_engines)
    for scores in score_shards(shards, ask, retry_levels(job.llm), events=IsolationCallbacks(on_reply)):
        if any(scores.reasons):
            raise RuntimeError(next(filter(None, scores.reasons)))
        answers[np.searchsorted(rows, scores.requests)] = scores.probabilities
    return time.perf_counter() - started, answers


def _read(folder: Path, file: str) -> pa.Table:
    return pq.read_table(folder / file)


if __name__ == "__main__":
    main()
