"""The job score_llm on tiny random models and real engines; its parts without them."""

import json
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from core import cli
from core.errors import InputError
from core.run import Run, StageResult
from core.settings.llm import Llm
from core.settings.loader import load_settings
from featurize.tokens.packing import Packer, save_packing
from infer.scoring.capacity import NoCapacityError, engines_fit_at_once, run_together
from infer.scoring.checkpoint_files import checkpoint_fingerprint
from infer.scoring.checkpoints import check_llms
from infer.scoring.plan import plan_scoring
from infer.scoring.requests import prediction_entropy
from metrics.scores import log_loss
from ray_jobs.blend import blend
from ray_jobs.ingest import ingest
from ray_jobs.score_llm import score_llm
from tests.helpers.tiny_llms import MAX_TOKENS, make_checkpoint
from tests.helpers.votes import COLUMNS, vote, write_votes
from votes import predictions
from votes.schema import TEXTS

ROWS, TEST_ROWS = 90, 20


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("llama"), "Llama")


@pytest.fixture
def job(tmp_path, capsys, ray_cluster):
    """Runs a job over small votes with the language models that are given as YAML."""
    pytest.importorskip("vllm", reason="scoring with language models is an extra")
    rows = [vote(n) for n in range(ROWS)]
    rows[7] = rows[3] | {"id": "7"}  # the same texts under another id
    rows[50] = rows[50] | {"response_a": json.dumps(["long " * 300])}
    write_votes(tmp_path / "train.csv", rows)
    write_votes(tmp_path / "test.csv", rows[:TEST_ROWS], [COLUMNS[0], *COLUMNS[3:6]])
    config = tmp_path / "config.yaml"

    def run(work, llms, *, code=0, dry=None):
        config.write_text(
            f"run: {tmp_path}/run\nllms: {llms}\nblend: {{preset: {{one: 1}}}}\n"
            f"data: {{folds: 3, shard_rows: 40, train: {tmp_path}/train.csv, test: {tmp_path}/test.csv}}\n"
        )
        line = ["--config", str(config), *(["--dry-run"] if dry else [])]
        found = cli.main(cli.Job(work.__name__, None, work, dry_run=dry), line)
        output = capsys.readouterr()
        assert found == code, output.err
        return output

    run(ingest, "[]")
    return run


def read(tmp_path, model, split="train"):
    return predictions.probabilities_from_table(pq.read_table(tmp_path / f"run/predictions/{model}/{split}.parquet"))


def manifest(tmp_path, model):
    return json.loads((tmp_path / f"run/predictions/{model}/manifest.json").read_text())


@pytest.mark.slow
def test_one_order_both_and_the_uncertain_ones(job, llama, tmp_path):
    one = f"{{name: one, checkpoint: {llama}, max_tokens: {MAX_TOKENS}, swap: none}}"
    job(score_llm, f"[{one}]")
    straight = read(tmp_path, "one")
    metrics = manifest(tmp_path, "one")["metrics"]
    # Test records are those of the first training rows, and row 7 is row 3: none of them is scored again.
    assert metrics["requests"] == ROWS + TEST_ROWS
    assert metrics["distinct_requests"] == ROWS - 1
    assert (straight[7] == straight[3]).all()
    assert (read(tmp_path, "one", "test") == straight[:TEST_ROWS]).all()
    shards = sorted((tmp_path / "run/predictions/one/shards/ab").rglob("*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    assert len(before) == 3

    # The same texts among other records: a training record fewer, and one of another text.
    rows = [vote(n) for n in range(ROWS)]
    rows[7] = rows[3] | {"id": "7"}
    rows[50] = rows[50] | {"response_a": json.dumps(["long " * 300])}
    changed = [*rows[:20], rows[20] | {"prompt": '["something else"]'}, *rows[21:-1]]
    write_votes(tmp_path / "train.csv", changed)
    job(ingest, "[]")
    assert "starting the engine for 1 requests" in job(score_llm, f"[{one}]").err
    again = read(tmp_path, "one")
    kept = [n for n in range(ROWS - 1) if n != 20]
    assert (again[kept] == straight[kept]).all()
    assert (again[20] != straight[20]).any()
    write_votes(tmp_path / "train.csv", rows)
    job(ingest, "[]")
    assert "starting the engine" not in job(score_llm, f"[{one}]").err, "answers are kept by text"
    before = {path: path.stat().st_mtime_ns for path in shards}

    unsure = one.replace("swap: none", "swap: uncertain, uncertain_share: 0.3")
    output = job(score_llm, f"[{unsure}]")
    assert {path: path.stat().st_mtime_ns for path in shards} == before, "the first order is not scored again"
    assert "scoring the most uncertain records in the second order" in output.err
    mixed = read(tmp_path, "one")
    changed = (mixed != straight).any(axis=1)
    assert manifest(tmp_path, "one")["metrics"]["records_in_both_orders"] == round(0.3 * ROWS) + round(0.3 * TEST_ROWS)
    chosen = np.argsort(-prediction_entropy(straight), kind="stable")[: round(0.3 * ROWS)]
    assert set(np.flatnonzero(changed)) == set(chosen.tolist())

    job(score_llm, f"[{one.replace('none', 'both')}]")
    both = read(tmp_path, "one")
    assert np.allclose(both[chosen], mixed[chosen], atol=1e-6)
    position = manifest(tmp_path, "one")["metrics"]["position"]
    assert position["records"] == ROWS + TEST_ROWS
    assert 0 < position["flip_rate"] < 1
    assert abs(position["first_share"] - 0.5) > 0.001, "a random model leans to one side"
    output = job(score_llm, f"[{one.replace('none', 'both')}]")
    assert "cached" in output.out

    output = job(score_llm, f"[{one.replace('none', 'both')[:-1]}, engine_args: {{max_num_seqs: 8}}}}]")
    assert "cached" in output.out, "what changes speed alone scores nothing again"

    job(score_llm, f"[{one.replace('none', 'both')[:-1]}, temperature: 3.0}}]")
    assert {path: path.stat().st_mtime_ns for path in shards} == before, "a temperature needs no engine"
    assert prediction_entropy(read(tmp_path, "one")).mean() > prediction_entropy(both).mean() + 0.01


@pytest.mark.slow
def test_a_record_that_fails_is_in_quarantine_and_the_blend_goes_on_without_it(job, llama, tmp_path):
    # Row 50 has more tokens than this engine takes.
    shared = f"checkpoint: {llama}, max_tokens: {MAX_TOKENS}, swap: none"
    poisoned = f"{{name: one, {shared}, engine_args: {{max_model_len: 400}}, max_failed: 0.0}}"
    output = job(score_llm, f"[{poisoned}]", code=1)
    assert f"1 of {ROWS + TEST_ROWS} records could not be scored, first 50: " in output.err
    assert "max_failed lets a share of 0 fail" in output.err
    assert not (tmp_path / "run/predictions/one/manifest.json").exists()

    tolerant = poisoned.replace("max_failed: 0.0", "max_failed: 0.01")
    output = job(score_llm, f"[{tolerant}]")
    assert "starting the engine for 1 requests" in output.err, "only the one that failed is asked again"
    table = pq.read_table(tmp_path / "run/predictions/one/train.parquet")
    assert table.num_rows == ROWS - 1
    assert "50" not in table["id"].to_pylist()
    (lost,) = pq.read_table(tmp_path / "run/predictions/one/quarantine.parquet").to_pylist()
    assert lost["id"] == "50"
    assert lost["split"] == "train"
    assert "400" in lost["reason"]
    assert manifest(tmp_path, "one")["metrics"]["failed"] == 1


@pytest.mark.slow
def test_a_judge_behind_a_cascade_sees_what_the_cheaper_model_is_least_sure_of(job, llama, tmp_path):
    judge = make_checkpoint(tmp_path / "judge", "Gemma2", "ForCausalLM")
    one = f"{{name: one, checkpoint: {llama}, max_tokens: {MAX_TOKENS}, swap: none}}"
    two = (
        f"{{name: two, mode: judge, checkpoint: {judge}, max_tokens: {MAX_TOKENS}, swap: both, "
        "cascade: {model: one, share: 0.2}}"
    )
    text = job(score_llm, f"[{one}, {two}]", dry=plan_scoring).out
    assert f"two ({judge}), judge, swap: both" in text
    # Both orders of a fifth of the records; of all of them, row 7 and the test records have texts of others.
    asked, distinct = 0.4 * (ROWS + TEST_ROWS), (ROWS - 1) / (ROWS + TEST_ROWS)
    assert f"{asked * distinct:.0f} ({asked * (1 - distinct):.0f} more have the same text)" in text
    job(score_llm, f"[{one}, {two}]")
    cheap, mixed = read(tmp_path, "one"), read(tmp_path, "two")
    passed_on = np.argsort(-prediction_entropy(cheap), kind="stable")[: round(0.2 * ROWS)]
    assert set(np.flatnonzero((cheap != mixed).any(axis=1))) == set(passed_on.tolist())
    metrics = manifest(tmp_path, "two")["metrics"]
    assert metrics["requests"] == 2 * (round(0.2 * ROWS) + round(0.2 * TEST_ROWS))
    labels = pq.read_table(tmp_path / "run/records/train")["label"].to_numpy()
    points = metrics["cascade"]["points"]
    assert np.isclose(points[0]["log_loss"], log_loss(cheap, labels))
    assert np.isclose(points[-1]["log_loss"], log_loss(mixed, labels))
    assert points[0]["seconds"] == 0 < points[-1]["seconds"]
    job(blend, f"[{one}, {two}]")


@pytest.mark.slow
def test_an_adapter_is_merged_into_its_checkpoint(job, llama, tmp_path):
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(llama)
    kind = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(1)
    adapted = get_peft_model(model, kind).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    packer = Packer(AutoTokenizer.from_pretrained(llama), MAX_TOKENS)
    llm = f"{{name: one, checkpoint: {llama}, adapter: {tmp_path}/adapter, max_tokens: {MAX_TOKENS}, swap: none}}"
    assert "has no packing.json" in job(score_llm, f"[{llm}]", code=2).err
    save_packing(packer, tmp_path / "adapter")
    job(score_llm, f"[{llm}]")
    records = pq.read_table(tmp_path / "run/records/test").to_pylist()
    with torch.no_grad():
        logits = [adapted(torch.tensor([packer.pack(*(one[name] for name in TEXTS))])).logits[0] for one in records]
    expected = torch.softmax(torch.stack(logits).double(), dim=1).numpy()
    np.testing.assert_allclose(read(tmp_path, "one", "test"), expected, atol=1e-4)


def test_gpus_that_never_come_end_the_job_with_what_is_missing(job, llama, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "a cluster that may grow")
    llm = f"{{name: one, checkpoint: {llama}, max_tokens: {MAX_TOKENS}, gpus_per_worker: 1, timeout_s: 2.0}}"
    error = job(score_llm, f"[{llm}]", code=2).err
    assert "no free resources for an engine (1 CPUs and 1 GPUs)" in error
    assert "0 of 0 GPUs free" in error
    assert "llms.one" in error


def test_models_work_run_together_as_far_as_there_is_room(ray_cluster):
    def work(name):
        def do():
            started.append(name)
            both.wait(timeout=30)  # raises if the other one does not start
            if name == "bad":
                raise ValueError("no")
            return [StageResult(name, False, {})]

        return do

    started: list[str] = []
    both = threading.Barrier(2)
    llms = [Llm(name=name, checkpoint="m/m") for name in ("good", "other", "bad")]
    found = run_together([(llm, work(llm.name)) for llm in llms[:2]])
    assert [result.stage for result in found] == ["good", "other"]
    with pytest.raises(ValueError, match="no"):
        run_together([(llm, work(llm.name)) for llm in llms[1:]])
    assert sorted(started) == ["bad", "good", "other", "other"]
    assert engines_fit_at_once(llms[:2])
    assert not engines_fit_at_once(llms), "the tests' cluster has two CPUs"


def test_a_model_that_found_no_room_beside_another_has_its_turn_after_it(capsys):
    ended = threading.Event()

    def first():
        ended.set()
        return [StageResult("first", False, {})]

    def second():
        if not tried:
            tried.append("beside")
            raise NoCapacityError("no room")
        assert ended.is_set()
        return [StageResult("second", False, {})]

    tried: list[str] = []
    llms = [Llm(name=name, checkpoint="m/m") for name in ("first", "second")]
    found = run_together(list(zip(llms, (first, second), strict=True)))
    assert [result.stage for result in found] == ["first", "second"]
    assert tried == ["beside"]
    assert "no free resources while other models ran" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("llms", "message"),
    [
        (
            "[{name: a, checkpoint: m/m, cascade: {model: b}}, {name: b, checkpoint: m/m}]",
            "'a' cannot cascade from 'b'",
        ),
        ("[{name: a, finetuned: x, mode: judge}]", "a judge needs checkpoint"),
        ("[{name: a, demo: {architecture: llama}, adapter: x}]", "an adapter needs checkpoint"),
        ("[{name: a, checkpoint: m/m, num_workers: [3, 2]}]", "min must not exceed max"),
        ("[{name: a, checkpoint: m/m, truncation: top}]", "truncation"),
        ("[{name: a, checkpoint: m/m, engine_args: {load_format: pt}}]", "pickle"),
        ("[{name: a, checkpoint: m/m, engine_args: {hf_token: hf_x}}]", "saved and shown"),
    ],
)
def test_impossible_settings_are_refused(llms, message):
    with pytest.raises(InputError, match=message):
        load_settings(f"run: x\nllms: {llms}", "c.yaml")


def test_checkpoints_that_differ_in_their_last_byte_alone_are_told_apart(tmp_path):
    prints = []
    for name, last in (("one", b"a"), ("two", b"b"), ("same as one", b"a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * 5_000_000 + last)
        prints.append(checkpoint_fingerprint(str(tmp_path / name)))
    assert prints[0] == prints[2] != prints[1]
    assert checkpoint_fingerprint("owner/model") == "owner/model"


def test_moving_between_cpu_and_gpu_changes_auto_precision_only():
    def effective_dtype(dtype, gpus):
        return Llm(name="m", checkpoint="m/m", dtype=dtype, gpus_per_worker=gpus).effective_dtype

    assert effective_dtype("auto", 0) == "float32"
    assert effective_dtype("auto", 1) == "auto"
    assert effective_dtype("bfloat16", 0) == "bfloat16"


def test_what_would_stop_the_scoring_stops_the_pipeline_at_its_start():
    settings = load_settings("run: s3://bucket/x\nllms: [{name: big, checkpoint: /none/such}]", "c.yaml")
    run = object.__new__(Run)  # without asking the bucket
    run.settings = settings
    with pytest.raises(InputError, match="/none/such"):
        check_llms(run)
