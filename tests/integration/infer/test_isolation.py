"""Scoring through real vLLM engines, against transformers on the same token ids."""

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray.data

from core.registry import MODES
from core.settings.llm import Llm
from featurize.tokens.packing import Packer
from infer.scoring.isolation import IsolationCallbacks, ShardScores, score_shards
from infer.scoring.job import ScoringJob, retry_levels
from infer.scoring.requests import RequestShard
from infer.scoring.streaming import RequestStream
from infer.scoring.vllm_engine import vllm_engines
from tests.helpers.tiny_llms import MAX_TOKENS, SENTENCES, make_checkpoint
from votes.schema import TEXTS
from votes.swap import swap_probabilities

pytest.importorskip("vllm", reason="scoring with language models is an extra")
pytestmark = pytest.mark.usefixtures("ray_cluster")

ATOL = 1e-5


def pack(checkpoint: str, records: pa.Table, judge: bool = False) -> pa.Table:
    """Records as the job packs them: the ids of both orders, and no reason why there are none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    packer = Packer(tokenizer, MAX_TOKENS, frame=MODES.get("judge").frame(tokenizer) if judge else None)
    both = [packer.pack_both(*(record[name] for name in TEXTS)) for record in records.to_pylist()]
    columns = {name: pa.array([ids[n] for ids in both], pa.list_(pa.int32())) for n, name in enumerate(("ab", "ba"))}
    return pa.table({**columns, "reason": [""] * len(records)})


def reference(checkpoint: str, packed: pa.Table, column: str, answers: tuple[int, ...] = ()) -> np.ndarray:
    """Softmax (n, 3) of transformers on packed records: of the head, or of the answers as the next token."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    # Not "sdpa", the default: it leaves out the soft capping of Gemma2's attention, which vLLM does as its authors did.
    kind = AutoModelForCausalLM if answers else AutoModelForSequenceClassification
    model = kind.from_pretrained(checkpoint, attn_implementation="eager").eval()
    found = []
    with torch.no_grad():
        for ids in packed[column].to_pylist():
            logits = model(torch.tensor([ids])).logits[0].double()
            found.append((logits[-1, list(answers)] if answers else logits).softmax(-1).numpy())
    return np.array(found)


def scoring_job(checkpoint: str, **settings: Any) -> ScoringJob:
    return ScoringJob(Llm(name="m", checkpoint=checkpoint, max_tokens=MAX_TOKENS, **settings), checkpoint)


def make_records(count: int, seed: int, most_words: int = 20) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = " ".join(SENTENCES).split()

    def turns() -> list[list[str | None]]:
        lengths = rng.integers(1, most_words, size=(count, int(rng.integers(1, 3))))
        return [[" ".join(rng.choice(words, length)) for length in row] for row in lengths]

    return pa.table({"id": [f"{seed}-{row}" for row in range(count)], **{name: turns() for name in TEXTS}})


def shards_of(tables: dict[str, pa.Table], orders: tuple[bool, ...] = (False, True)) -> list[RequestShard]:
    """A shard for each table and order, of all its records; requests are numbered through."""
    shards = []
    number = 0
    for key, table in tables.items():
        for swapped in orders:
            rows = np.arange(len(table), dtype=np.int32)
            shards.append(RequestShard(f"{key}-{swapped}", key, rows, swapped, number + rows.astype(np.int64)))
            number += len(rows)
    return shards


def score(
    tables: dict[str, pa.Table],
    job: ScoringJob,
    orders: tuple[bool, ...] = (False, True),
    events: IsolationCallbacks | None = None,
    restarts: int | None = None,
) -> Any:
    def read_shard(file: str) -> pa.Table:
        return tables[file]

    levels = retry_levels(job.llm)
    if restarts is not None:
        levels = (dataclasses.replace(levels[0], restarts=restarts), *levels[1:])
    return score_shards(shards_of(tables, orders), RequestStream(job, read_shard, vllm_engines), levels, events=events)


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


@pytest.mark.slow
def test_failing_requests_fail_alone_and_an_early_close_ends_the_engines(llama: str) -> None:
    poisoned = pack(llama, make_records(6, seed=1, most_words=8))
    columns = {name: poisoned[name].to_pylist() for name in poisoned.column_names}
    columns["ab"][2], columns["reason"][2] = [], "cannot be packed: no"
    columns["ab"][4] = [5] * 400  # more tokens than this engine takes
    tables = {
        "a": pack(llama, make_records(40, seed=0, most_words=8)),
        "b": pa.table(
            {"ab": pa.array(columns["ab"], pa.list_(pa.int32())), "ba": poisoned["ba"], "reason": columns["reason"]}
        ),
        "c": pack(llama, make_records(1, seed=2, most_words=8)),
    }
    # More shards, so that there is work left when the iterator is closed.
    tables |= {f"more-{seed}": pack(llama, make_records(200, seed=seed)) for seed in range(10, 16)}
    job = scoring_job(llama, batch_size=16, engine_args={"max_model_len": 300})
    context = ray.data.DataContext.get_current()
    progress = context.enable_progress_bars, context.print_on_execution_start
    environment = dict(os.environ)

    scores = score(tables, job, orders=(False,))
    came: dict[str, ShardScores] = {}
    with EngineWatch() as watch:  # an engine that has done its work may end before the iterator is closed
        while not {"a-False", "b-False", "c-False"} <= came.keys():
            one = next(scores)
            assert one.file not in came
            came[one.file] = one
        scores.close()
    assert watch.seen
    assert all_end(list(watch.seen))

    changed = {name for name in os.environ if os.environ[name] != environment.get(name)}
    assert changed <= {"LD_LIBRARY_PATH"}  # set by opencv, which vLLM imports
    assert (context.enable_progress_bars, context.print_on_execution_start) == progress
    assert ray.data.DataContext.get_current() is context

    for key in ("a", "c"):
        one = came[f"{key}-False"]
        expected = reference(llama, tables[key], "ab")
        assert one.requests.tolist() == sorted(one.requests.tolist())
        assert set(one.reasons) == {""}
        assert one.seconds > 0
        np.testing.assert_allclose(one.probabilities, expected, atol=ATOL)
    assert came["a-False"].probabilities.std(axis=0).max() > 0.05, "records must differ for this to mean anything"

    failed = came["b-False"]
    assert np.isnan(failed.probabilities[[2, 4]]).all()
    assert failed.reasons[2] == "cannot be packed: no"
    assert "300" in failed.reasons[4]
    others = [0, 1, 3, 5]
    np.testing.assert_allclose(
        failed.probabilities[others], reference(llama, tables["b"].take(others), "ab"), atol=ATOL
    )


def test_a_head_on_gemma_agrees_with_transformers_and_no_engine_is_left(tmp_path: Path) -> None:
    gemma = make_checkpoint(tmp_path, "Gemma2")
    tables = {"a": pack(gemma, make_records(9, seed=0, most_words=150)), "b": pack(gemma, make_records(5, seed=1))}
    reported: list[tuple[int, int]] = []
    events = IsolationCallbacks(on_reply=lambda requests, tokens: reported.append((requests, tokens)))
    with EngineWatch() as watch:
        came = {one.file: one.probabilities for one in score(tables, scoring_job(gemma, batch_size=8), events=events)}
    assert watch.seen
    assert all_end(list(watch.seen))
    for key, table in tables.items():
        for swapped, column in ((False, "ab"), (True, "ba")):
            np.testing.assert_allclose(came[f"{key}-{swapped}"], reference(gemma, table, column), atol=ATOL)
        assert np.abs(came[f"{key}-False"] - swap_probabilities(came[f"{key}-True"])).max() > 0.01, "order must matter"
    lengths = [len(ids) for table in tables.values() for ids in table["ab"].to_pylist()]
    assert max(lengths) > 450, "cut records must be among them"
    assert sum(requests for requests, _ in reported) == 2 * len(lengths)
    assert sum(tokens for _, tokens in reported) == 2 * sum(lengths)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["Llama", "Gemma2"])
def test_a_judges_probabilities_are_those_of_exactly_the_answers_tokens(architecture: str, tmp_path: Path) -> None:
    judge = make_checkpoint(tmp_path, architecture, "ForCausalLM")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(judge)
    mode = MODES.get("judge")
    answers = mode.answer_ids(tokenizer, mode.frame(tokenizer))
    tables = {"a": pack(judge, make_records(30, seed=0, most_words=100), judge=True)}
    job = dataclasses.replace(scoring_job(judge, mode="judge", batch_size=8), answer_ids=answers)
    came = {one.file: one for one in score(tables, job)}
    for key, column in (("a-False", "ab"), ("a-True", "ba")):
        assert set(came[key].reasons) == {""}
        np.testing.assert_allclose(came[key].probabilities, reference(judge, tables["a"], column, answers), atol=ATOL)
    assert came["a-False"].probabilities.std(axis=0).max() > 0.05, "records must differ for this to mean anything"


@pytest.mark.slow
def test_an_engine_that_never_answers_ends_the_work_with_its_own_words(tmp_path: Path) -> None:
    # vLLM's attention on CPUs takes no heads of this size, which it notices with the first request.
    checkpoint = make_checkpoint(tmp_path, "Llama", head_dim=16)
    tables = {"a": pack(checkpoint, make_records(5, seed=1))}
    incidents: list[str] = []
    with pytest.raises(RuntimeError, match=r"crashes on every request.*head_dim=16.*last in .*worker-"):
        list(
            score(tables, scoring_job(checkpoint), events=IsolationCallbacks(on_incident=incidents.append), restarts=0)
        )
    assert incidents == [
        "the engine crashed before any reply; sending the last request alone",
        "the engine also crashed on the last request; retrying it once",
    ]


@pytest.mark.slow
def test_an_engine_that_gives_no_answer_is_given_up(llama: str) -> None:
    tables = {"a": pack(llama, make_records(3, seed=0))}
    with pytest.raises(RuntimeError, match=r"no reply from the model for 0\.5 s"):
        list(score(tables, scoring_job(llama, timeout_s=0.5)))
