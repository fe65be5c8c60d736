"""A tiny Gemma 2 with LoRA: trained until it knows its records by heart, then scored by vLLM."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from core.settings.finetune import Lora, TrainingStage
from tests.helpers.commands import run_here
from tests.helpers.tiny_models import MAX_TOKENS, llm_settings, tiny_model
from train.finetune.memory import flops_per_token, microbatch_shapes, plan_memory, predicting_flops_per_token
from train.finetune.networks import load_config
from votes.schema import PROBABILITIES


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """96 records in 3 folds, of which one is trained: on 64 records."""
    folder = tmp_path_factory.mktemp("llm")
    model = tiny_model(folder / "gemma2", "gemma2")
    settings = {
        "run": "runs/unused",
        "data": {"synthetic": {"train_rows": 96, "test_rows": 10}, "folds": 3, "shard_rows": 50},
        "finetune": {
            "llms": [
                {
                    "name": "gemma-lora",
                    "model": str(model),
                    "max_tokens": MAX_TOKENS,
                    "folds": [1],
                    "dtype": "float32",
                    "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
                    "stages": [{"epochs": 40, "learning_rate": 0.01, "weight_decay": 0.0}],
                }
            ],
        },
        "llms": [{"name": "gemma", "finetuned": "gemma-lora", "max_tokens": MAX_TOKENS}],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory, ray_cluster):
    run = tmp_path_factory.mktemp("llm-run") / "run"
    for job in ("ingest", "train_llm"):
        done = run_here(job, run, config=str(config))
        assert done.returncode == 0, done.stderr
    return run


def test_it_learns_64_records_by_heart(trained):
    history = json.loads((trained / "models/gemma-lora/fold-1/history.json").read_text())
    last = [point["loss"] for point in history if point["epoch"] == 39]
    assert np.mean(last) < 0.1
    assert (trained / "models/gemma-lora/fold-1/model/adapter/adapter_model.safetensors").exists()


@pytest.mark.slow
def test_vllm_scores_the_merged_model_as_training_saw_it(trained, config):
    done = run_here("score_llm", trained, config=str(config))
    assert done.returncode == 0, done.stderr
    held_out = pq.read_table(trained / "models/gemma-lora/fold-1/out_of_fold.parquet")
    scored = pq.read_table(trained / "predictions/gemma/train.parquet")
    assert set(scored["fold"].to_pylist()) == {1}
    for name in PROBABILITIES[:3]:
        np.testing.assert_allclose(scored[name].to_numpy(), held_out[name].to_numpy(), atol=1e-3)
    assert pq.read_metadata(trained / "predictions/gemma/test.parquet").num_rows == 10


def test_scoring_can_be_planned_before_the_model_is_trained(trained, config, tmp_path):
    run = tmp_path / "run"
    assert run_here("ingest", run, config=str(config)).returncode == 0
    before, after = (
        run_here("score_llm", folder, config=str(config), flags=["--dry-run"]) for folder in (run, trained)
    )
    assert before.returncode == 0, before.stderr
    assert before.stdout == after.stdout
    assert "operations" in before.stdout
    assert not (run / "models").exists()


def test_a_checkpoint_is_not_scored_on_what_it_was_trained_on(trained, config):
    model = trained / "models/gemma-lora/fold-1/model"
    done = run_here(
        "score_llm", trained, "llms.gemma.finetuned=null", f"llms.gemma.checkpoint={model}", config=str(config)
    )
    assert done.returncode == 2
    assert "was trained on these records, all but fold 1" in done.stderr


def test_the_dry_run_counts_what_training_does(trained, config):
    done = run_here("train_llm", trained, config=str(config), flags=["--dry-run"])
    assert done.returncode == 0, done.stderr
    text = done.stdout
    history = json.loads((trained / "models/gemma-lora/fold-1/history.json").read_text())
    epoch = [point for point in history if point["epoch"] == 0]
    assert f"{len(epoch)} steps, {int(sum(point['tokens'] for point in epoch)):,} tokens" in text
    adapter = (trained / "models/gemma-lora/fold-1/model/adapter/adapter_model.safetensors").read_bytes()
    shapes = json.loads(adapter[8 : 8 + int.from_bytes(adapter[:8], "little")])
    trained_count = sum(int(np.prod(each["shape"])) for name, each in shapes.items() if name != "__metadata__")
    assert f"of which {trained_count:,} are trained" in text
    assert f"{_operations(trained, history):.3g} a fold" in text


def _operations(run, history):
    """Return the operations of all steps, and of the predictions of the held-out fold after each epoch."""
    stages = [TrainingStage(epochs=40, learning_rate=0.01)]
    settings = llm_settings(stages=stages, lora=Lora(r=16, alpha=32, dropout=0.0), gradient_checkpointing=True)
    config = load_config(str(run / "models/gemma-lora/fold-1/model"))
    counts = (
        pq.read_table(run / "tokens/gemma-lora/train", columns=["row", "tokens"]).sort_by("row")["tokens"].to_numpy()
    )
    folds = pq.read_table(run / "records/train", columns=["position", "fold"]).sort_by("position")["fold"].to_numpy()
    plan = plan_memory(config, settings, microbatch_shapes(counts[folds != 1], settings, seed=1))
    sequence = int((counts**2).sum() / counts.sum())
    learned = sum(point["tokens"] for point in history) * flops_per_token(config, plan, settings, sequence)
    # After each epoch, and once more with the adapters merged.
    predicted = 41 * 2 * counts[folds == 1].sum() * predicting_flops_per_token(config, plan, sequence)
    return learned + predicted
