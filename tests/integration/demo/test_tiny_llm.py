from pathlib import Path

import numpy as np
import pytest

from core.settings.llm import TinyArchitecture
from demo.generator import decode_turns, generate_pairs
from demo.tiny_llm import TinyLlmTraining, build_tiny_llm
from featurize.tokens.packing import Packer, check_packing
from votes.schema import TEXTS

ARCHITECTURES: tuple[TinyArchitecture, ...] = ("gemma2", "llama")


# The pipeline's test makes a Gemma 2.
@pytest.mark.parametrize("architecture", [pytest.param("gemma2", marks=pytest.mark.slow), "llama"])
def test_checkpoint_loads_and_repeats(architecture: TinyArchitecture, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for noise, name in enumerate(("one", "two")):
        torch.manual_seed(noise)  # the weights must not depend on what drew random numbers before
        metrics = build_tiny_llm(architecture, tmp_path / name, seed=3, training=TinyLlmTraining(rows=64, steps=2))
        assert np.isfinite(list(metrics.values())).all()
    weights = "model.safetensors"
    assert (tmp_path / "one" / weights).read_bytes() == (tmp_path / "two" / weights).read_bytes()

    folder = tmp_path / "one"
    check_packing(folder, 192)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.architectures == [
        {"gemma2": "Gemma2", "llama": "Llama"}[architecture] + "ForSequenceClassification"
    ]
    assert model.config.id2label == {0: "A", 1: "B", 2: "tie"}
    assert model.config.head_dim % 32 == 0
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.dtype == torch.float32

    text = "Größe / Привет 天气 🚀\n\n  x"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    record = [decode_turns(generate_pairs(1, seed=5).table[name][0].as_py()) for name in TEXTS]
    ids = Packer(tokenizer, 192).pack(*record)
    logits = model(input_ids=torch.tensor([ids])).logits
    assert logits.shape == (1, 3)
    assert torch.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_few_seconds_of_training_beat_the_class_prior(architecture: TinyArchitecture, tmp_path: Path) -> None:
    metrics = build_tiny_llm(architecture, tmp_path, seed=1)
    assert metrics["best_log_loss"] < metrics["held_out_log_loss"] < metrics["class_prior_log_loss"] - 0.03
