"""Tiny models of the real architectures, with random weights, as folders that transformers loads."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.pretrained import load_tokenizer
from core.settings.finetune import FinetunedEncoder, FinetunedLlm, FinetunedModel, Scratch, TrainingStage
from core.settings.packing import TokenLayout
from demo.generator import decode_turns, generate_pairs
from featurize.tokens.columns import PACKED_SCHEMA
from featurize.tokens.packing import Packer
from train.finetune.data import TokenData
from train.finetune.scratch import build_scratch
from votes.schema import TEXTS

MAX_TOKENS = 96


def encoder_settings(**settings: Any) -> FinetunedEncoder:
    """Settings of an encoder, by default of one epoch that trains everything, without label smoothing."""
    stages = [TrainingStage(learning_rate=1e-3)]
    return FinetunedEncoder(
        **{"name": "m", "max_tokens": MAX_TOKENS, "label_smoothing": 0.0, "stages": stages, **settings}
    )


def llm_settings(**settings: Any) -> FinetunedLlm:
    """Settings of a language model with LoRA, by default in float32 and without gradient checkpointing."""
    plain = {"dtype": "float32", "gradient_checkpointing": False, "stages": [TrainingStage(learning_rate=1e-3)]}
    return FinetunedLlm(**{"name": "m", "max_tokens": MAX_TOKENS, **plain, **settings})


def settings_for(architecture: str, **settings: Any) -> FinetunedModel:
    """Settings of a tiny model: an encoder, or a language model."""
    return encoder_settings(**settings) if architecture == "deberta-v2" else llm_settings(**settings)


def records(rows: int, seed: int = 3):
    """Synthetic pairs as texts (a list of turns each) and labels."""
    pairs = generate_pairs(rows, seed, "finetune")
    texts = [[decode_turns(text) for text in pairs.table[name].to_pylist()] for name in TEXTS]
    return list(zip(*texts, strict=True)), pairs.labels


def tiny_model(folder: Path, architecture: str, layers: int = 2) -> Path:
    """An encoder with dropout, or a causal model with a tokenizer that begins with a token of its own."""
    from transformers import (
        AutoConfig,
        Gemma2Config,
        Gemma2ForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    texts = (turn for record in records(60)[0] for turns in record for turn in turns if turn)
    build_scratch(folder, texts, Scratch(layers=layers, hidden=32, heads=1, vocabulary=600), MAX_TOKENS, seed=1)
    if architecture == "deberta-v2":
        config = AutoConfig.from_pretrained(folder)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
        config.save_pretrained(folder)
        return folder
    tokenizer = load_tokenizer(str(folder))
    for file in folder.iterdir():
        file.unlink()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]",
        model_max_length=MAX_TOKENS,
    ).save_pretrained(folder)  # fmt: skip
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers,
        "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 1024,
        "initializer_range": 0.1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_labels": 3,
    }  # fmt: skip
    if architecture == "llama":
        LlamaForSequenceClassification(LlamaConfig(**shape)).save_pretrained(folder)
    else:
        gemma = Gemma2Config(**shape, query_pre_attn_scalar=32, sliding_window=64, attn_implementation="eager")
        Gemma2ForSequenceClassification(gemma).save_pretrained(folder)
    return folder


def token_data(folder: Path, architecture: str, rows: int, folds: int = 3) -> TokenData:
    """Packed synthetic records in the object store, in blocks of 20."""
    import ray

    texts, labels = records(rows)
    layout: TokenLayout = "encoder" if architecture == "deberta-v2" else "decoder"
    packer = Packer(load_tokenizer(str(folder)), MAX_TOKENS, layout)
    packed = [packer.pack_both_marked(*record) for record in texts]
    blocks = []
    for start in range(0, rows, 20):
        part = packed[start : start + 20]
        columns: dict[str, Any] = {"row": np.arange(start, start + len(part))}
        for order, name in enumerate(("ab", "ba")):
            columns |= {
                name: [orders[order][0] for orders in part],
                f"{name}_parts": [orders[order][1] for orders in part],
            }
        blocks.append(ray.put(pa.table(columns, schema=PACKED_SCHEMA)))
    lengths = np.array([len(ids) for (ids, _), _ in packed], np.int32)
    return TokenData(blocks, lengths, np.eye(3)[labels], (np.arange(rows) % folds).astype(np.int16))
