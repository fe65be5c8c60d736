"""Scoring through real vLLM engines, against transformers on the same token ids."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray.data
from ray.exceptions import OutOfMemoryError, RayActorError

from featurize.tokens.packing import Packer
from infer.scoring import isolation
from infer.scoring.engine_settings import LlmSettings
from infer.scoring.isolation import Shard, ShardScores, score_shards
from infer.scoring.judge_prompt import answer_ids, chat_frame
from tests.helpers.tiny_llms import MAX_TOKENS, SENTENCES, make_checkpoint
from votes.schema import PROBABILITIES, TEXTS
from votes.swap import swap_probabilities

pytest.importorskip("vllm", reason="scoring with language models is an extra")
pytestmark = pytest.mark.usefixtures("ray_cluster")

ATOL = 1e-5


def pack(checkpoint: str, records: pa.Table, judge: bool = False) -> pa.Table:
    """Records as the job packs them: the ids of both orders, and no reason why there are none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    packer = Packer(tokenizer, MAX_TOKENS, frame=chat_frame(tokenizer) if judge else None)
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


def make_records(count: int, seed: int, most_words: int = 20) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = " ".join(SENTENCES).split()

    def turns() -> list[list[str | None]]:
        lengths = rng.integers(1, most_words, size=(count, int(rng.integers(1, 3))))
        return [[" ".join(rng.choice(words, length)) for length in row] for row in lengths]

    return pa.table({"id": [f"{seed}-{row}" for row in range(count)], **{name: turns() for name in TEXTS}})


def requests_of(tables: dict[str, pa.Table], orders: tuple[bool, ...] = (False, True)) -> list[Shard]:
    """A shard for each table and order, of all its records; requests are numbered through."""
    shards = []
    number = 0
    for key, table in tables.items():
        for swapped in orders:
            rows = np.arange(len(table), dtype=np.int32)
            shards.append(
                Shard(f"{key}-{swapped}", key, rows, np.full(len(rows), swapped), number + rows.astype(np.int64))
            )
            number += len(rows)
    return shards


def score(tables: dict[str, pa.Table], settings: LlmSettings, orders: tuple[bool, ...] = (False, True)) -> Any:
    def read_shard(file: str) -> pa.Table:
        return tables[file]

    return score_shards(requests_of(tables, orders), read_shard, settings)


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
    settings = LlmSettings(llama, MAX_TOKENS, batch_size=16, engine={"max_model_len": 300})
    context = ray.data.DataContext.get_current()
    progress = context.enable_progress_bars, context.print_on_execution_start
    environment = dict(os.environ)

    scores = score(tables, settings, orders=(False,))
    came: dict[str, ShardScores] = {}
    with EngineWatch() as watch:  # an engine that has done its work may end before the iterator is closed
        while not {"a-False", "b-False", "c-False"} <= came.keys():
            one = next(scores)
            assert one.key not in came
            came[one.key] = one
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
    told: list[tuple[int, int]] = []
    with EngineWatch() as watch:
        scores = score_shards(
            requests_of(tables),
            tables.__getitem__,
            LlmSettings(gemma, MAX_TOKENS, batch_size=8),
            lambda requests, tokens: told.append((requests, tokens)),
        )
        came = {one.key: one.probabilities for one in scores}
    assert watch.seen
    assert all_end(list(watch.seen))
    for key, table in tables.items():
        for swapped, column in ((False, "ab"), (True, "ba")):
            np.testing.assert_allclose(came[f"{key}-{swapped}"], reference(gemma, table, column), atol=ATOL)
        assert np.abs(came[f"{key}-False"] - swap_probabilities(came[f"{key}-True"])).max() > 0.01, "order must matter"
    lengths = [len(ids) for table in tables.values() for ids in table["ab"].to_pylist()]
    assert max(lengths) > 450, "cut records must be among them"
    assert sum(requests for requests, _ in told) == 2 * len(lengths)
    assert sum(tokens for _, tokens in told) == 2 * sum(lengths)


@pytest.mark.parametrize("architecture", ["Llama", pytest.param("Gemma2", marks=pytest.mark.slow)])
def test_a_judges_probabilities_are_those_of_exactly_the_answers_tokens(architecture: str, tmp_path: Path) -> None:
    judge = make_checkpoint(tmp_path, architecture, "ForCausalLM")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(judge)
    answers = answer_ids(tokenizer, chat_frame(tokenizer))
    tables = {"a": pack(judge, make_records(30, seed=0, most_words=100), judge=True)}
    settings = LlmSettings(judge, MAX_TOKENS, mode="judge", answers=answers, batch_size=8)
    came = {one.key: one for one in score(tables, settings)}
    for key, column in (("a-False", "ab"), ("a-True", "ba")):
        assert set(came[key].reasons) == {""}
        np.testing.assert_allclose(came[key].probabilities, reference(judge, tables["a"], column, answers), atol=ATOL)
    assert came["a-False"].probabilities.std(axis=0).max() > 0.05, "records must differ for this to mean anything"


class FakeEngines:
    """Stands in for asking: every request is answered with thirds, and some kill the engine, with the last answers.

    `deaths` are by request what an engine dies of then, once each. With `fails`, all others are refused; with
    `dies_after`, an engine that was asked a single request dies when it has answered.
    """

    def __init__(self, deaths: dict[int, list[Exception]], lost: int = 5) -> None:
        self.deaths = deaths
        self.lost = lost
        self.starts = 0
        self.fails = self.dies_after = False
        self.after: Exception = RayActorError()  # what it dies of then
        self.bypassing: set[int] = set()  # requests that cannot be packed

    def __call__(self, asked: dict[int, Shard], *_: object) -> Any:
        order = [(index, number) for index, shard in asked.items() for number in shard.requests.tolist()]
        self.starts += 1
        deadly = [place for place, (_, number) in enumerate(order) if self.deaths.get(number)]
        for index, number in order[: max(0, deadly[0] - self.lost) if deadly else None]:
            thirds = dict.fromkeys(PROBABILITIES, 1 / 3)
            if number in self.bypassing:
                yield {"shard": index, "request": number, "tokens": 0, isolation._ERROR: "cannot be packed"}
                continue
            error = "refused" if self.fails else ""
            yield {"shard": index, "request": number, "tokens": 1, isolation._ERROR: error, **thirds}
        if not deadly and self.dies_after and len(order) == 1:
            raise self.after
        if deadly:
            raise self.deaths[order[deadly[0]][1]].pop()


def score_with(
    engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, told: list[str] | None = None, **more: Any
) -> dict[int, str]:
    """Score ten shards of a `count` of requests, a hundred; why each request that failed did."""
    monkeypatch.setattr(isolation, "_answers", engines)
    count = more.pop("count", 100)
    rows = np.arange(count, dtype=np.int32)
    shards = [Shard(str(n), "", rows, rows < 0, n * count + rows.astype(np.int64)) for n in range(10)]
    settings = LlmSettings("m", replicas=more.pop("replicas", (1, 1)))
    notice = (told if told is not None else []).append
    came = list(score_shards(shards, lambda file: pa.table({}), settings, notice=notice, **more))
    assert sum(len(one.requests) for one in came) == 10 * count
    failed = {
        number: reason
        for one in came
        for number, reason in zip(one.requests.tolist(), one.reasons, strict=True)
        if reason
    }
    nans = {number for one in came for number in one.requests[np.isnan(one.probabilities[:, 0])].tolist()}
    assert failed.keys() == nans
    return failed


DIED_ALONE = "the engine died twice when it was asked about this record alone"


@pytest.mark.parametrize("replicas", [(1, 1), (1, 4)])
@pytest.mark.parametrize("death", [RayActorError(), OutOfMemoryError("the node has no memory left")])
def test_what_kills_engines_is_found_though_they_take_answers_with_them(
    replicas: tuple[int, int], death: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    killers = {0, 1, 2, 37, 38, 950}  # the first three before anything is answered
    engines = FakeEngines({number: [death] * 99 for number in killers})
    told: list[str] = []
    failed = score_with(engines, monkeypatch, told, replicas=replicas, most_killers=6)
    assert failed == dict.fromkeys(killers, DIED_ALONE)
    assert told.count("the engine died of a single request again, which counts as failed") == len(killers)
    assert engines.starts < 90


def test_a_machine_that_goes_away_costs_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    died, gone = RayActorError(), RayActorError(preempted=True)
    engines = FakeEngines({0: [gone, died] * 4 + [gone], 501: [gone] * 9})
    told: list[str] = []
    assert score_with(engines, monkeypatch, told) == {}
    assert not any(engines.deaths.values())
    assert told.count("the machine of an engine went away; asking again") == 5 + 9
    # Three deaths on the way to asking it alone, in which it died once.
    assert told.count("the engine died of a single request; asking it once more") == 1


def test_machines_that_go_on_going_away_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = FakeEngines({0: [RayActorError(preempted=True)] * 99})
    with pytest.raises(RuntimeError, match="10 times the machine of an engine went away before an answer"):
        score_with(engines, monkeypatch)


def test_more_killers_than_are_allowed_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in range(100, 1000)})
    with pytest.raises(RuntimeError, match="died of 5 requests, each asked alone"):
        score_with(engines, monkeypatch, most_killers=4)
    assert engines.starts < 40


def test_an_engine_that_dies_of_whatever_it_is_asked_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in range(1000)})
    with pytest.raises(RuntimeError, match="dies of whatever it is asked, or when it starts"):
        score_with(engines, monkeypatch, most_killers=20)
    assert engines.starts == 3


def test_a_machine_that_goes_away_after_the_last_request_was_answered_is_no_endless_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in (0, 998)})
    engines.dies_after, engines.after = True, RayActorError(preempted=True)
    assert score_with(engines, monkeypatch) == dict.fromkeys((0, 998), DIED_ALONE)
    assert engines.starts < 60


def test_a_last_request_that_passes_by_the_engine_shows_no_life(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = FakeEngines({number: [RayActorError()] * 99 for number in range(999)})
    engines.bypassing = {999}
    with pytest.raises(RuntimeError, match="dies of whatever it is asked, or when it starts"):
        score_with(engines, monkeypatch, most_killers=20)
    assert engines.starts < 6


@pytest.mark.slow
def test_an_engine_that_never_answers_ends_the_work_with_its_own_words(tmp_path: Path) -> None:
    # vLLM's attention on CPUs takes no heads of this size, which it notices with the first request.
    checkpoint = make_checkpoint(tmp_path, "Llama", head_dim=16)
    tables = {"a": pack(checkpoint, make_records(5, seed=1))}
    settings = LlmSettings(checkpoint, MAX_TOKENS, restarts=0)
    told: list[str] = []
    with pytest.raises(RuntimeError, match=r"dies of whatever it is asked.*head_dim=16.*last in .*worker-"):
        list(score_shards(requests_of(tables), tables.__getitem__, settings, notice=told.append))
    assert told == [
        "the engine died before it answered anything; asking the last request alone",
        "the engine died of the last request, too; asking it once more",
    ]


@pytest.mark.parametrize("rest", ["answered and then dead", "failed", "killers too"])
def test_three_killers_and_nothing_answered_are_not_the_end_where_the_last_request_shows_life(
    rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = [RayActorError()] * 99
    engines = FakeEngines({number: list(died) for number in range(1000 if rest == "killers too" else 3)})
    engines.dies_after = rest == "answered and then dead"
    engines.fails = rest == "failed"
    budget = 1000 if rest == "killers too" else 3
    failed = score_with(engines, monkeypatch, most_killers=budget, count=5 if rest == "killers too" else 100)
    assert set(failed.values()) <= {DIED_ALONE, "refused"}
    assert sum(reason == DIED_ALONE for reason in failed.values()) == (50 if rest == "killers too" else 3)


def test_a_request_that_vllm_would_never_end_is_not_asked() -> None:
    ids = pa.array([[5] * 4, [5] * 7, [5] * 6], pa.list_(pa.int32()))
    packed = pa.table({"ab": ids, "ba": ids, "reason": ["", "", "why"]})
    item = {"shard": 0, "file": "a", "rows": [0, 1, 2], "swapped": [False] * 3, "requests": [10, 11, 12]}
    endless = isolation._endless(LlmSettings("m", engine={"max_model_len": "7"}))
    made = pa.concat_tables(isolation._requests(pa.Table.from_pylist([item]), lambda file: packed, 2, endless))
    first, second, third = made[isolation._ERROR].to_pylist()
    assert (first, third) == ("", "why")
    assert "7 tokens" in second
    assert isolation._endless(LlmSettings("m")) is None
    assert isolation._endless(LlmSettings("m", mode="judge", engine={"max_model_len": 7})) is None


@pytest.mark.slow
def test_an_engine_that_gives_no_answer_is_given_up(llama: str) -> None:
    tables = {"a": pack(llama, make_records(3, seed=0))}
    with pytest.raises(RuntimeError, match=r"no answer from the model for 0\.5 s"):
        list(score(tables, LlmSettings(llama, MAX_TOKENS, patience=0.5)))
