"""Measure scoring with full-size language models on a GPU: records per second, and the share of the chip's matrix rate.

Run as: python -m benchmarks.llm_gpu --prepare FOLDER --votes votes.csv     on any machine: packs the votes
        python -m benchmarks.llm_gpu --prepared FOLDER          on the machine with the GPU
        python -m benchmarks.llm_gpu --tiny --weights /tmp      the same on CPUs, with tiny models

The models are Gemma-2-9b and Llama-3-8b with a head. Records are real votes, packed to at most --max-tokens by a
tokenizer of 32,000 tokens that is learned from them. Weights are random, in bfloat16. Each backend has its own weights.
With --weights all backends share them, and the differences of their probabilities are printed. Backends: `ours` is
`score_llm`, vLLM under Ray Data. `engine` is vLLM alone with the same settings and all requests at once, longest first.
`transformers` is for machines without vLLM: padded batches of similar lengths within a token budget. It omits the soft
capping of Gemma-2's attention.

Start-up and the first quarter of the replies are not measured. Prefix caching is off, so all counted tokens are
computed. Operations are those that a causal model needs: 2 per multiplied parameter and token, and half of the
attention scores, without padding. The matrix rate is measured on a large product of normally distributed numbers for a
few seconds. A chip may clock higher for smaller numbers, such as vLLM's own random weights.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.featurize import ROOT
from benchmarks.llm_score import REAL, TOKENS, pack_votes, score, token_counts, train_tokenizer
from benchmarks.search import VOTES
from core.settings.llm import Llm
from featurize.tokens.batches import budget_batches, pad
from infer.scoring.job import ScoringJob, retry_levels
from infer.scoring.size import load_config_and_size
from infer.scoring.vllm_engine import engine_environment, engine_options
from train.finetune.flops import attention_flops, non_embedding_parameters

# From the models' own configurations. Other values are the defaults of transformers.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3-8b": (
        "llama",
        {
            "vocab_size": 128_256,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
        },
    ),
    "gemma-2-9b": (
        "gemma2",
        {
            "vocab_size": 256_000,
            "hidden_size": 3584,
            "intermediate_size": 14_336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 256,
            "max_position_embeddings": 8192,
        },
    ),
}
TINY = {
    "vocab_size": 32_000,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
WARM = 0.25  # share of the replies before the clock starts
RATE_SECONDS = 5.0
RESULT = "result "  # prefix of a child's result line
BUDGET = 16_384  # tokens of a padded batch of transformers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="pack the votes into this folder, and end")
    parser.add_argument("--prepared", type=Path, help="a folder of --prepare")
    parser.add_argument("--votes", nargs="+", default=[str(VOTES.parent / name) for name in REAL])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--layers", type=int, help="number of layers, if not the model's own")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers")
    parser.add_argument("--max-tokens-per-microbatch", type=int, help="of the engine, instead of its default")
    parser.add_argument("--engine", type=json.loads, default={}, help="more of vLLM's engine arguments, as JSON")
    parser.add_argument("--weights", type=Path, help="write weights (about 18 GB) under this folder, for all backends")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step, folder = options.child
        print(RESULT + json.dumps({"rate": _rate, "make": _make, **BACKENDS}[step](Path(folder), options)))
        return
    if options.prepare:
        _prepare(options.prepare, options)
        return
    if options.weights:
        options.weights.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.weights) as name:
        folder = Path(name)
        if options.prepared is None:
            options.prepared = folder / "prepared"
            _prepare(options.prepared, options)
        lengths = token_counts(options.prepared / TOKENS)
        if len(lengths) < 1 / WARM:
            raise SystemExit(f"{len(lengths)} records are too few for a warm-up")
        print(f"{len(lengths):,} requests, {lengths.sum():,} tokens, at most {lengths.max():,} each", flush=True)
        rate = _child("rate", folder, options)["rate"]
        print(f"{_device()}: {rate / 1e12:,.3g} TFLOP/s in a large matrix product", flush=True)
        for shape in options.shapes:
            model = folder / shape
            model_size = _child("make", model, options)
            print(f"{shape}: {model_size['parameters'] / 1e9:.3g} billion parameters", flush=True)
            done = [backend for backend in options.backends if _measured(backend, model, options, rate)]
            if options.weights:
                _compare(model, done)
            for file in model.glob("*.safetensors"):  # free the disk for the next model
                file.unlink()


def _prepare(folder: Path, options: argparse.Namespace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(options.votes).save_pretrained(folder)
    pack_votes(options.votes, options.rows, folder, folder / TOKENS, options.max_tokens)


def _child(step: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run a step in its own process; return its result. Copy its other output to standard error."""
    line = [sys.executable, "-m", "benchmarks.llm_gpu", *sys.argv[1:]]
    line += ["--prepared", str(options.prepared), "--child", step, str(folder)]
    environment = os.environ | (engine_environment(_job(folder, options)) if step == "engine" else {})
    done = subprocess.run(line, check=False, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    results = [text.removeprefix(RESULT) for text in done.stdout.splitlines() if text.startswith(RESULT)]
    sys.stderr.write("".join(text for text in done.stdout.splitlines(True) if not text.startswith(RESULT)))
    if not results:
        raise RuntimeError(f"{step} ended with exit code {done.returncode}")
    result: dict[str, float] = json.loads(results[-1])
    return result


def _measured(backend: str, model: Path, options: argparse.Namespace, rate: float) -> bool:
    """Measure a backend and print the result; return whether it worked."""
    try:
        cost = _child(backend, model, options)
    except RuntimeError as error:
        print(f"  {backend:12} failed: {error}; see standard error", flush=True)
        return False
    _say(backend, cost, rate)
    return True


def _say(backend: str, cost: dict[str, float], rate: float) -> None:
    seconds = cost["seconds"]
    print(
        f"  {backend:12} {cost['records'] / seconds:8.2f} records/s  {cost['tokens'] / seconds:9,.0f} tokens/s  "
        f"{cost['operations'] / seconds / rate:6.1%} of the matrix rate, {cost['operations'] / seconds / 1e12:,.3g} "
        f"TFLOP/s, over {cost['records']:,.0f} records in {seconds:,.1f} s; {cost['whole']:,.0f} s with the start",
        flush=True,
    )


def _compare(model: Path, backends: list[str]) -> None:
    """Print the differences of the backends' probabilities, in pairs."""
    answers = {backend: np.load(_answers(model, backend)) for backend in backends}
    for number, first in enumerate(backends):
        for other in backends[number + 1 :]:
            differences = np.abs(answers[first] - answers[other])
            print(
                f"  {first} and {other}: probabilities differ by {differences.mean():.2g} on average, "
                f"{differences.max():.2g} at most "
                f"(their standard deviation over the records: {answers[first].std(0).mean():.2g})",
                flush=True,
            )


def _device() -> str:
    line = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPUs')"
    return subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True).stdout.strip()


def _on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _job(model: Path, options: argparse.Namespace) -> ScoringJob:
    engine_args = {
        "enable_prefix_caching": False,
        **({} if options.weights else {"load_format": "dummy"}),
        **options.engine,
    }
    longest = int(token_counts(options.prepared / TOKENS).max())
    llm = Llm(
        name="model",
        checkpoint=str(model),
        max_tokens=longest,
        max_tokens_per_microbatch=options.max_tokens_per_microbatch,
        engine_args=engine_args,
        gpus_per_worker=int(_on_gpu()),
        cpus_per_worker=1 if _on_gpu() else os.cpu_count() or 1,
    )
    return ScoringJob(llm, str(model))


def _answers(model: Path, backend: str) -> Path:
    return model / f"{backend}.npy"


def _operations(model: Path, lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the operations (n,) of requests of these lengths (n,)."""
    config, parameters = load_config_and_size(str(model), "classify")
    sizes = lengths.astype(np.float64)
    return sizes * (2.0 * non_embedding_parameters(config, parameters) + attention_flops(config, 1.0) / 2 * sizes)


def _clocked(model: Path, lengths: Sequence[int], ends: Sequence[float], started: float) -> dict[str, float]:
    """Return the measures of the replies after the warm-up; `lengths` and `ends` (times) have the replies' order."""
    # The warm-up includes all replies at the time of its last one.
    warm = int(np.searchsorted(ends, ends[_warm(len(ends)) - 1], side="right"))
    if warm == len(ends):
        raise RuntimeError(f"{len(ends)} records are too few: all replies came at once")
    later = np.array(lengths[warm:])
    return {
        "seconds": ends[-1] - ends[warm - 1],
        "records": len(later),
        "tokens": int(later.sum()),
        "operations": float(_operations(model, later).sum()),
        "whole": ends[-1] - started,
    }


def _warm(requests: int) -> int:
    return round(WARM * requests)


def _rate(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the operations per second of a product of random square matrices: bfloat16 on a GPU, float32 on CPUs."""
    import torch

    gpu = _on_gpu()
    size = 8192 if gpu else 2048
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds: list[float] = []
    while 5 * sum(seconds) < RATE_SECONDS:
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        if gpu:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / 5)
    return {"rate": 2 * size**3 / statistics.median(seconds[len(seconds) // 5 :])}


def _make(model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Write a model's configuration, its weights with --weights, and the prepared tokenizer, which Ray Data reads."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    model_type, shape = SHAPES[model.name]
    shape = shape | (TINY if options.tiny else {}) | ({"num_hidden_layers": options.layers} if options.layers else {})
    tokenizer = AutoTokenizer.from_pretrained(options.prepared)
    config = AutoConfig.for_model(
        model_type,
        **shape,
        num_labels=3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    with torch.device("meta"):
        network = _network(config)
    config.architectures = [type(network).__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(model)
    tokenizer.save_pretrained(model)
    if options.weights:
        with torch.device("cuda" if _on_gpu() else "cpu"):
            _network(config).save_pretrained(model)
    return {"parameters": sum(parameter.numel() for parameter in network.parameters())}


def _network(config: Any) -> Any:  # noqa: ANN401 - of transformers
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)


def _ours(model: Path, options: argparse.Namespace) -> dict[str, float]:
    import ray

    started = time.perf_counter()
    # Weights may be in shared memory, too, so the object store with the requests gets a small part of it.
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        num_gpus=int(_on_gpu()),
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=1 << 30,
    )
    lengths: list[int] = []
    ends: list[float] = []

    def on_reply(requests: int, tokens: int) -> None:
        lengths.append(tokens)
        ends.append(time.perf_counter())

    file = options.prepared / TOKENS
    _, answers = score(file, _job(model, options), np.arange(len(token_counts(file))), on_reply)
    np.save(_answers(model, "ours"), answers)
    return _clocked(model, lengths, ends, started)


def _engine(model: Path, options: argparse.Namespace) -> dict[str, float]:
    from vllm import LLM

    started = time.perf_counter()
    ids = pq.read_table(options.prepared / TOKENS)["ab"].to_pylist()
    order = np.argsort([-len(row) for row in ids], kind="stable")
    job = _job(model, options)
    engine_args = engine_options(job, retry_levels(job.llm)[0])
    llm = LLM(model=str(model), runner="pooling", convert="classify", **engine_args)
    answers = np.full((len(ids), 3), np.nan)
    ends: list[float] = []
    for part in np.split(order, [_warm(len(ids))]):
        outputs = llm.classify([{"prompt_token_ids": ids[row]} for row in part], use_tqdm=False)
        answers[part] = [answer.outputs.probs for answer in outputs]
        ends += [time.perf_counter()] * len(part)
    np.save(_answers(model, "engine"), answers)
    return _clocked(model, [len(ids[row]) for row in order], ends, started)


def _transformers(model: Path, options: argparse.Namespace) -> dict[str, float]:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    started = time.perf_counter()
    device, dtype = ("cuda", torch.bfloat16) if _on_gpu() else ("cpu", torch.float32)
    ids = [np.array(row) for row in pq.read_table(options.prepared / TOKENS)["ab"].to_pylist()]
    if options.weights:
        network = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype).to(device).eval()
    else:
        with torch.device(device):
            network = _network(AutoConfig.from_pretrained(model)).to(dtype).eval()
    answers = np.full((len(ids), 3), np.nan)
    lengths: list[int] = []
    ends: list[float] = []
    with torch.inference_mode():
        for batch in budget_batches(np.array([len(row) for row in ids]), BUDGET):
            # A mask would disable the fast attention kernel. It is not needed: padding is on the right, where a causal
            # model does not look, and the head finds the last token by the padding id.
            padded, _ = pad([ids[row] for row in batch], network.config.pad_token_id)
            logits = network(input_ids=torch.from_numpy(padded).to(device), use_cache=False).logits
            answers[batch] = torch.softmax(logits.double(), 1).cpu().numpy()
            lengths += [len(ids[row]) for row in batch]
            ends += [time.perf_counter()] * len(batch)
    np.save(_answers(model, "transformers"), answers)
    return _clocked(model, lengths, ends, started)


BACKENDS = {"ours": _ours, "engine": _engine, "transformers": _transformers}

if __name__ == "__main__":
    main()
