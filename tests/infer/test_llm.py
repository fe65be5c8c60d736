"""Scoring through real vLLM engines, against transformers on the same token ids: two engine starts in all."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray.data

from infer.llm import Shard, ShardScores, score_shards
from infer.llm_settings import LlmSettings
from preference.packing import Packer, save_packing
from preference.schema import TEXTS
from preference.swap import swap_average, swap_probabilities, swap_records

pytest.importorskip("vllm", reason="scoring with language models is an extra")
pytestmark = pytest.mark.usefixtures("ray_cluster")

SENTENCES = [
    "How do I sort a list in Python?",
    "Use sorted(values), which returns a new list; values.sort() sorts in place.",
    "Prompt: which answer is better? Response A: the first. Response B: the second.",
]
MAX_TOKENS = 512
ATOL = 1e-5


def make_checkpoint(folder: Path, architecture: str) -> str:
    """A random model with a head of three classes whose probabilities differ a lot between records."""
    import torch
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=350, special_tokens=["<s>", "<pad>"], show_progress=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", pad_token="<pad>"
    )
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "num_labels": 3,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": None,
        "initializer_range": 0.3,
    }
    if architecture == "Gemma2":  # its layers alternate between a window and the whole text: let the window matter
        config |= {"sliding_window": 64, "query_pre_attn_scalar": 32}
    torch.manual_seed(0)
    model_config = getattr(transformers, f"{architecture}Config")(**config)
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(model_config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_packing(Packer(tokenizer, MAX_TOKENS), folder)
    return str(folder)


def reference(checkpoint: str, records: pa.Table) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Softmax (n, 3) of transformers on the packed records, in both orders, and the tokens of each."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    # Not "sdpa", the default: it leaves out the soft capping of Gemma2's attention, which vLLM does as its authors did.
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    packer = Packer(AutoTokenizer.from_pretrained(checkpoint), MAX_TOKENS)
    both: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    tokens = []
    with torch.no_grad():
        for record in records.to_pylist():
            packed = packer.pack_both(*(record[name] for name in TEXTS))
            tokens.append(len(packed[0]))
            for order, ids in zip(both, packed, strict=True):
                order.append(model(torch.tensor([ids])).logits[0].double().softmax(-1).numpy())
    return np.array(both[0]), np.array(both[1]), tokens


def make_records(count: int, seed: int, most_words: int = 20) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = " ".join(SENTENCES).split()

    def turns() -> list[list[str | None]]:
        lengths = rng.integers(1, most_words, size=(count, int(rng.integers(1, 3))))
        return [[" ".join(rng.choice(words, length)) for length in row] for row in lengths]

    return pa.table({"id": [f"{seed}-{row}" for row in range(count)], **{name: turns() for name in TEXTS}})


def score(tables: dict[str, pa.Table], settings: LlmSettings) -> Iterator[ShardScores]:
    def read_shard(key: str) -> pa.Table:
        return tables[key]

    return score_shards([Shard(key, table.num_rows) for key, table in tables.items()], read_shard, settings)


def engines() -> list[psutil.Process]:
    """Engine processes among our descendants."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if "EngineCore" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


class EngineWatch(threading.Thread):
    """Collects the engines that run while the context lasts."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[psutil.Process] = set()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1):
            self.seen |= set(engines())

    def __enter__(self) -> "EngineWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def all_end(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=30)[1]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("llama"), "Llama")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_checkpoint(tmp_path_factory.mktemp("gemma"), "Gemma2")


def test_one_order_poisoned_records_and_an_early_close(llama: str) -> None:
    poisoned = make_records(6, seed=1, most_words=8)
    prompts = poisoned["prompt"].to_pylist()
    prompts[2] = None  # not a list of turns
    prompts[4] = [" ".join(SENTENCES * 6)]  # more tokens than this engine takes
    poisoned = poisoned.set_column(1, "prompt", pa.array(prompts, pa.list_(pa.string())))
    tables = {
        "a": make_records(40, seed=0, most_words=8),
        "none": make_records(0, seed=9),
        "b": poisoned,
        "c": make_records(1, seed=2, most_words=8),
    }
    # So many more shards that the engine is still at work when the iterator is closed.
    tables |= {f"more-{seed}": make_records(200, seed=seed) for seed in range(10, 20)}
    settings = LlmSettings(llama, MAX_TOKENS, swap="none", batch_size=16, engine={"max_model_len": 300})
    context = ray.data.DataContext.get_current()
    progress = context.enable_progress_bars, context.print_on_execution_start
    environment = dict(os.environ)

    scores = score(tables, settings)
    came: dict[str, ShardScores] = {}
    while not {"a", "none", "b", "c"} <= came.keys():
        one = next(scores)
        assert one.key not in came
        came[one.key] = one
    running = engines()
    assert running
    scores.close()  # type: ignore[attr-defined]
    assert all_end(running)

    changed = {name for name in os.environ if os.environ[name] != environment.get(name)}
    assert changed <= {"LD_LIBRARY_PATH"}  # set by opencv, which vLLM imports
    assert (context.enable_progress_bars, context.print_on_execution_start) == progress
    assert ray.data.DataContext.get_current() is context

    assert came["none"].ids == []
    assert came["none"].probabilities.shape == (0, 3)
    for key in ("a", "c"):
        expected, _, tokens = reference(llama, tables[key])
        assert came[key].ids == tables[key]["id"].to_pylist()
        assert came[key].failures == {}
        assert came[key].tokens == sum(tokens)
        assert came[key].seconds > 0
        np.testing.assert_allclose(came[key].probabilities, expected, atol=ATOL)
    assert came["a"].probabilities.std(axis=0).max() > 0.05, "records must differ for this to mean anything"

    assert came["b"].ids == ["1-0", "1-1", "1-3", "1-5"]
    assert came["b"].failures.keys() == {"1-2", "1-4"}
    assert "cannot be packed" in came["b"].failures["1-2"]
    assert "300" in came["b"].failures["1-4"]
    expected, _, _ = reference(llama, poisoned.take([0, 1, 3, 5]))
    np.testing.assert_allclose(came["b"].probabilities, expected, atol=ATOL)


def test_both_orders_are_averaged_and_no_engine_is_left(gemma: str) -> None:
    tables = {"a": make_records(9, seed=0, most_words=150), "b": make_records(5, seed=1)}
    tables["swapped"] = swap_records(tables["a"])
    with EngineWatch() as watch:
        scores = score(tables, LlmSettings(gemma, MAX_TOKENS, swap="both", batch_size=8))
        came = {one.key: one for one in scores}
    assert watch.seen
    assert all_end(list(watch.seen))

    assert came.keys() == tables.keys()
    for key in ("a", "b"):
        straight, exchanged, tokens = reference(gemma, tables[key])
        assert came[key].ids == tables[key]["id"].to_pylist()
        assert came[key].tokens == 2 * sum(tokens)
        np.testing.assert_allclose(came[key].probabilities, swap_average(straight, exchanged), atol=ATOL)
        assert np.abs(straight - swap_probabilities(exchanged)).max() > 0.01, "the model must care about the order"
    assert max(reference(gemma, tables["a"])[2]) > 450, "cut records must be among them"
    np.testing.assert_allclose(came["swapped"].probabilities, swap_probabilities(came["a"].probabilities), atol=ATOL)
