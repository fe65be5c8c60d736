"""Scoring with language models of their real size on a GPU: records a second, and the share of the chip's matrix rate.

Run as: python -m benchmarks.llm_gpu --prepare FOLDER --votes votes.csv     anywhere: packs the votes
        python -m benchmarks.llm_gpu --prepared FOLDER          where the GPU is
        python -m benchmarks.llm_gpu --tiny --weights /tmp      the same on CPUs, with tiny models

Gemma-2-9b and Llama-3-8b with a head; real votes, packed to at most --max-tokens. Weights are random, in bfloat16: each
way's own, or with --weights the same ones, and it is said how far apart the ways' probabilities are then. Ways:
ours, what `score_llm` runs, vLLM under Ray Data; engine, vLLM alone with the same settings and the same requests; and
transformers, the same forward pass over batches of like lengths within a budget of tokens, for a machine to which vLLM
cannot be brought. Start-up is left out: the clock starts when the first answers are there, and what is counted is what
is answered later. The matrix rate is that of one large product, measured in the same run; operations are those that a
causal model must do: 2 for each multiplied parameter and token, and half of attention's scores, nothing for padding.
A chip's rate depends on the numbers too: it may clock higher for vLLM's small random weights than for the product's
normally distributed ones, so a share above 1 would be possible.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.featurize import ROOT
from benchmarks.llm_score import REAL, TOKENS, pack_votes, score, token_counts, train_tokenizer
from benchmarks.search import VOTES
from infer.llm_engine import engine_environment, engine_options
from infer.llm_settings import LlmSettings
from infer.llm_size import load_shape
from preference.schema import LABELS
from preference.token_batches import budget_batches, model_inputs
from preference.transformer_cost import attention_operations, multiplied_parameters

# From the models' own configurations; what is not named is transformers' default.
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
WARM = 32  # requests before the clock starts, for the ways that start no engines
PARAMETERS = "parameters.json"  # how many the model has
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
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--layers", type=int, help="fewer than the model's own")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers")
    parser.add_argument("--tokens-per-step", type=int, help="of the engine, instead of its default")
    parser.add_argument("--engine", type=json.loads, default={}, help="more of vLLM's engine arguments, as JSON")
    parser.add_argument("--weights", type=Path, help="write weights (about 18 GB) under this folder, for all ways")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step, folder = options.child
        print("result", json.dumps({"rate": _rate, "make": _make, **WAYS}[step](Path(folder), options)))
        return
    if options.prepare:
        _prepare(options.prepare, options)
        return
    with tempfile.TemporaryDirectory(dir=options.weights) as name:
        folder = Path(name)
        if options.prepared is None:
            options.prepared = folder / "prepared"
            _prepare(options.prepared, options)
        rate = _child("rate", folder, options)["rate"]
        print(f"{_device()}: {rate / 1e12:,.3g} TFLOP/s in a large matrix product", flush=True)
        for shape in options.shapes:
            model = folder / shape
            made = _child("make", model, options)
            print(f"{shape}: {made['parameters'] / 1e9:.3g} billion parameters", flush=True)
            for way in options.ways:
                _tell(way, _child(way, model, options), rate)
            if options.weights:
                _compare(model, options.ways)
            for file in model.glob("*.safetensors"):  # the next model's need the room
                file.unlink()


def _prepare(folder: Path, options: argparse.Namespace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(options.votes).save_pretrained(folder)
    tokens = pack_votes(options.votes, options.rows, folder, folder / TOKENS, options.max_tokens)
    print(f"{options.rows:,} records, {tokens:,} tokens, at most {options.max_tokens:,} each", flush=True)


def _child(step: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """What a process of its own finds; what it says otherwise goes to the terminal."""
    line = [sys.executable, "-m", "benchmarks.llm_gpu", "--child", step, str(folder)]
    line += ["--prepared", str(options.prepared), "--max-tokens", str(options.max_tokens)]
    line += ["--shapes", folder.name] if folder.name in SHAPES else []
    line += ["--tiny"] if options.tiny else []
    line += ["--engine", json.dumps(options.engine)]
    for name in ("layers", "tokens_per_step", "weights"):
        if getattr(options, name):
            line += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = os.environ | (engine_environment(_settings(folder, options)) if step == "engine" else {})
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1].removeprefix("result "))
    return found


def _tell(way: str, found: dict[str, float], rate: float) -> None:
    seconds = found["seconds"]
    print(
        f"  {way:12} {found['records'] / seconds:8.2f} records/s  {found['tokens'] / seconds:9,.0f} tokens/s  "
        f"{found['operations'] / seconds / rate:6.1%} of the matrix rate, {found['operations'] / seconds / 1e12:,.3g} "
        f"TFLOP/s, over {found['records']:,.0f} records in {seconds:,.1f} s; {found['whole']:,.0f} s with the start",
        flush=True,
    )


def _compare(model: Path, ways: list[str]) -> None:
    """How far apart the ways' probabilities are, in pairs."""
    answers = {way: np.load(_answers(model, way)) for way in ways}
    for number, one in enumerate(ways):
        for other in ways[number + 1 :]:
            apart = np.abs(answers[one] - answers[other])
            print(
                f"  {one} and {other}: probabilities {apart.mean():.2g} apart in the mean, {apart.max():.2g} at most "
                f"(their standard deviation over the records: {answers[one].std(0).mean():.2g})",
                flush=True,
            )


def _device() -> str:
    line = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPUs')"
    return subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True).stdout.strip()


def _gpus() -> int:
    import torch

    return int(torch.cuda.is_available())


def _settings(model: Path, options: argparse.Namespace) -> LlmSettings:
    weights = {} if options.weights else {"load_format": "dummy"}
    settings = LlmSettings(
        str(model),
        options.max_tokens,
        tokens_per_step=options.tokens_per_step,
        patience=300,
        engine={**weights, **options.engine},
    )
    if _gpus():
        return dataclasses.replace(settings, gpus_per_replica=1)
    return dataclasses.replace(settings, cpus_per_replica=os.cpu_count() or 1)


def _answers(model: Path, way: str) -> Path:
    return model / f"{way}.npy"


def _operations(model: Path, lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Those (n,) of requests of these lengths (n,)."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    of_matrices = 2.0 * multiplied_parameters(config, json.loads((model / PARAMETERS).read_text()))
    sizes = lengths.astype(np.float64)
    return sizes * (of_matrices + attention_operations(config, 1.0) / 2 * sizes)


def _clocked(
    model: Path, lengths: list[int], ends: list[float], started: float, first: int | None = None
) -> dict[str, float]:
    """Of answered requests, in the order of their answers, what came after the first of them (`first`: how many).

    `ends` are the times of the answers. Without `first`, the first are those that came together with the very first:
    an engine answers batch by batch.
    """
    clock = np.array(ends)
    skipped = first or int(np.searchsorted(clock, clock[0] + 0.05))
    later = np.array(lengths[skipped:])
    return {
        "seconds": clock[-1] - clock[skipped - 1],
        "records": len(later),
        "tokens": int(later.sum()),
        "operations": float(_operations(model, later).sum()),
        "whole": clock[-1] - started,
    }


def _rate(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Operations a second of a product of random square matrices: bfloat16 on a GPU, float32 on CPUs."""
    import torch

    gpu = _gpus() > 0
    size = 8192 if gpu else 2048
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(30):
        if gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        if gpu:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / 5)
    return {"rate": 2 * size**3 / statistics.median(seconds[5:])}


def _make(model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Write a model, if asked for with weights, and the prepared folder's tokenizer, which Ray Data reads."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    kind, shape = SHAPES[options.shapes[0]]
    shape = shape | (TINY if options.tiny else {}) | ({"num_hidden_layers": options.layers} if options.layers else {})
    tokenizer = AutoTokenizer.from_pretrained(options.prepared)
    config = AutoConfig.for_model(
        kind, **shape, num_labels=len(LABELS), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
    )
    with torch.device("meta"):
        config.architectures = [type(_network(config)).__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(model)
    if options.weights:
        with torch.device("cuda" if _gpus() else "cpu"):
            _network(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    _, parameters = load_shape(str(model), "classify")
    (model / PARAMETERS).write_text(json.dumps(parameters))
    return {"parameters": parameters}


def _network(config: Any) -> Any:  # noqa: ANN401 - of transformers
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16)


def _ours(model: Path, options: argparse.Namespace) -> dict[str, float]:
    import ray

    started = time.perf_counter()
    # The weights may be in the shared memory too: the object store, where requests are, gets a small part of it.
    ray.init(
        address="local", num_gpus=_gpus(), include_dashboard=False, log_to_driver=False, object_store_memory=1 << 30
    )
    file = options.prepared / TOKENS
    lengths: list[int] = []
    ends: list[float] = []

    def tell(requests: int, tokens: int) -> None:
        lengths.append(tokens)
        ends.append(time.perf_counter())

    _, answers = score(file, _settings(model, options), np.arange(len(token_counts(file))), tell)
    np.save(_answers(model, "ours"), answers)
    return _clocked(model, lengths, ends, started)


def _engine(model: Path, options: argparse.Namespace) -> dict[str, float]:
    from vllm import LLM

    started = time.perf_counter()
    ids = pq.read_table(options.prepared / TOKENS)["ab"].to_pylist()
    order = np.argsort([-len(row) for row in ids], kind="stable")
    # The first are asked alone, from the middle: to start what starts with the first request.
    order = np.concatenate([order[len(order) // 2 :][:WARM], order[: len(order) // 2], order[len(order) // 2 + WARM :]])
    llm = LLM(model=str(model), runner="pooling", convert="classify", **engine_options(_settings(model, options)))
    answers = np.full((len(ids), len(LABELS)), np.nan)
    ends: list[float] = []
    for part in (order[:WARM], order[WARM:]):
        found = llm.classify([{"prompt_token_ids": ids[row]} for row in part], use_tqdm=False)
        answers[part] = [answer.outputs.probs for answer in found]
        ends += [time.perf_counter()] * len(part)
    np.save(_answers(model, "engine"), answers)
    return _clocked(model, [len(ids[row]) for row in order], ends, started, WARM)


def _transformers(model: Path, options: argparse.Namespace) -> dict[str, float]:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    started = time.perf_counter()
    device, dtype = ("cuda", torch.bfloat16) if _gpus() else ("cpu", torch.float32)
    ids = [np.array(row) for row in pq.read_table(options.prepared / TOKENS)["ab"].to_pylist()]
    if options.weights:
        network = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype).to(device).eval()
    else:
        with torch.device(device):
            network = _network(AutoConfig.from_pretrained(model)).to(dtype).eval()
    answers = np.full((len(ids), len(LABELS)), np.nan)
    batches = budget_batches(np.array([len(row) for row in ids]), BUDGET)
    ends: list[float] = []
    with torch.inference_mode():
        for batch in (batches[0], *batches):  # the first twice: once before the clock starts
            inputs = model_inputs([ids[row] for row in batch], network.config.pad_token_id)
            tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
            answers[batch] = torch.softmax(network(**tensors).logits.double(), 1).cpu().numpy()
            ends += [time.perf_counter()] * len(batch)
    np.save(_answers(model, "transformers"), answers)
    lengths = [len(ids[row]) for batch in (batches[0], *batches) for row in batch]
    return _clocked(model, lengths, ends, started, len(batches[0]))


WAYS = {"ours": _ours, "engine": _engine, "transformers": _transformers}

if __name__ == "__main__":
    main()
