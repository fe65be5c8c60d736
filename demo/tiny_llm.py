"""Tiny Gemma-2 and Llama classifiers for the demo: the real architectures and file formats, trained in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from demo.generator import SyntheticPairs, decode_turns, generate_pairs
from featurize.tokens.packing import TEMPLATE, Packer, save_packing
from metrics.scores import log_loss
from votes.schema import LABELS, TEXTS
from votes.swap import swap_average, swap_probabilities

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from core.arrays import Doubles, Ints, Probabilities
    from core.settings.llm import TinyArchitecture
    from featurize.tokens.truncation import TokenIds

_TOKENIZER_ROWS: Final = 600
_HELD_OUT_ROWS: Final = 300
_VOCABULARY: Final = 3000
_SPECIAL: Final = ("<pad>", "<bos>", "<eos>", "<unk>")
_PAD, _BOS, _EOS = range(3)

# vLLM's attention kernels for CPU need head_dim to be a multiple of 32. Weights of standard deviation 0.1 learn faster
# than the usual 0.02: held-out log loss 0.88 against 0.97 (Llama) and 0.98 against 1.01 (Gemma 2), with seed 1.
_SHAPE: Final = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
}


@dataclass(frozen=True)
class TinyLlmTraining:
    """How long a tiny model is trained, and on how many records."""

    rows: int = 2400
    steps: int = 150
    batch_size: int = 16  # records, each in both orders
    learning_rate: float = 7e-3


def build_tiny_llm(
    architecture: TinyArchitecture,
    folder: Path,
    seed: int,
    max_tokens: int = 192,
    training: TinyLlmTraining | None = None,
    classes: int = 3,
) -> dict[str, float]:
    """Train a tiny model and save it to `folder`: safetensors, config, tokenizer and packing.json.

    It learns from records of the generator's stream "llm-<architecture>", each in both orders, packed to `max_tokens`.
    Its targets are the true probabilities instead of single votes. That stands in for what a pre-trained model knows,
    so a few seconds of training suffice. The records that it will score are of other streams: it has seen none of them.
    The same arguments give the same weights on the same machine. torch is set to one thread meanwhile.

    Returns `held_out_log_loss`, swap-averaged on votes of a stream of its own. On the same votes,
    `class_prior_log_loss` scores the training stream's class shares, and `best_log_loss` the truth. Also returns
    `vocabulary`.

    Raises InputError if `max_tokens` is too few to pack a record.
    """
    import torch

    training = training or TinyLlmTraining()
    # On matrices this small threads cost more than they save. One thread also adds up in a fixed order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokenizer = _train_tokenizer(architecture, seed, max_tokens)
            packer = Packer(tokenizer, max_tokens)
            train = generate_pairs(training.rows, seed, f"llm-{architecture}", classes)
            held_out = generate_pairs(_HELD_OUT_ROWS, seed, f"llm-{architecture}-held-out", classes)
            model = _new_model(architecture, len(tokenizer), classes)
            _fit(model, _pack(packer, train), train.probabilities, training, seed)
            predicted = _predict(model, _pack(packer, held_out))
    finally:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_packing(packer, folder)
    prior = np.tile(_symmetric_shares(train), (_HELD_OUT_ROWS, 1))
    return {
        "held_out_log_loss": log_loss(predicted, held_out.labels),
        "class_prior_log_loss": log_loss(prior, held_out.labels),
        "best_log_loss": held_out.truth_log_loss,
        "vocabulary": float(len(tokenizer)),
    }


def _texts(pairs: SyntheticPairs) -> list[list[list[str | None]]]:
    """Return prompts, answers A and answers B, as lists of turns."""
    return [[decode_turns(text) for text in pairs.table[name].to_pylist()] for name in TEXTS]


def _train_tokenizer(architecture: TinyArchitecture, seed: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose tokens may span words, so that a record fits into few tokens.

    With tokens kept within words, answers took 1.5 times as many tokens on average (130 against 88).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    columns = _texts(generate_pairs(_TOKENIZER_ROWS, seed, f"llm-{architecture}-tokenizer"))
    corpus = [turn for column in columns for turns in column for turn in turns if turn]
    corpus += list(TEMPLATE) * 200  # often enough to become tokens of their own
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    pad, bos, eos, unk = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        model_max_length=max_tokens,
    )


def _new_model(architecture: TinyArchitecture, vocabulary: int, classes: int) -> PreTrainedModel:
    """Make a model with random weights, float32, with a head for the outcomes."""
    from transformers import (
        Gemma2Config,
        Gemma2ForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
    )

    settings: dict[str, Any] = {
        **_SHAPE,
        "vocab_size": vocabulary,
        "pad_token_id": _PAD,
        "bos_token_id": _BOS,
        "eos_token_id": _EOS,
        "id2label": dict(enumerate(LABELS[:classes])),
        "label2id": {label: index for index, label in enumerate(LABELS[:classes])},
        "problem_type": "single_label_classification",
    }
    if architecture == "llama":
        return LlamaForSequenceClassification(LlamaConfig(**settings))
    # transformers' default attention (SDPA) skips Gemma 2's soft-capping of scores, which vLLM applies; so does eager
    # attention. The difference moved probabilities by up to 0.003.
    gemma = Gemma2Config(
        **settings, query_pre_attn_scalar=_SHAPE["head_dim"], sliding_window=128, attn_implementation="eager"
    )
    return Gemma2ForSequenceClassification(gemma)


def _pack(packer: Packer, pairs: SyntheticPairs) -> list[tuple[TokenIds, TokenIds]]:
    """Return the token ids of each record, and of the record with A and B exchanged."""
    return [packer.pack_both(*turns) for turns in zip(*_texts(pairs), strict=True)]


def _batch(sequences: Sequence[TokenIds]) -> dict[str, Tensor]:
    """Return right-padded ids and their mask."""
    import torch

    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), _PAD)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _batches(lengths: Ints, size: int, seed: int) -> Iterator[Ints]:
    """Yield the indices of each step's records without end: shuffled, with records of similar lengths together."""
    rng = np.random.default_rng(seed)
    while True:
        batches = []
        # Sorting within pools of 16 batches leaves little padding, and the pools differ in every pass.
        for pool in np.array_split(rng.permutation(len(lengths)), max(1, len(lengths) // (size * 16))):
            ordered = pool[np.argsort(lengths[pool], kind="stable")]
            batches += np.array_split(ordered, max(1, len(pool) // size))
        for index in rng.permutation(len(batches)):
            yield batches[index]


def _fit(
    model: PreTrainedModel,
    packed: list[tuple[TokenIds, TokenIds]],
    targets: Probabilities,
    training: TinyLlmTraining,
    seed: int,
) -> None:
    """Train with AdamW. A tenth of the steps is warmup, then the rate decays linearly. Each step has both orders."""
    import torch

    steps = training.steps

    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    both = np.stack([targets, swap_probabilities(targets)], axis=1)
    batches = _batches(np.array([len(ids) for ids, _ in packed]), training.batch_size, seed)
    model.train()
    for _ in range(steps):
        chosen = next(batches)
        logits = model(**_batch([ids for index in chosen for ids in packed[index]])).logits
        target = torch.tensor(both[chosen].reshape(-1, targets.shape[1]), dtype=torch.float32)
        loss = torch.nn.functional.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _predict(model: PreTrainedModel, packed: list[tuple[TokenIds, TokenIds]], size: int = 32) -> Probabilities:
    """Return swap-averaged probabilities (n, k)."""
    import torch

    result = np.empty((len(packed), model.config.num_labels))
    order = np.argsort([len(ids) for ids, _ in packed], kind="stable")
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = _batch([ids for row in rows for ids in packed[row]])
            shares = torch.softmax(model(**batch).logits.double(), dim=1).numpy()
            result[rows] = swap_average(shares[0::2], shares[1::2])
    return result


def _symmetric_shares(pairs: SyntheticPairs) -> Doubles:
    """Return class shares (k,) of the votes in both orders."""
    shares = np.bincount(pairs.labels, minlength=pairs.probabilities.shape[1]) / len(pairs.labels)
    symmetric: Doubles = (shares + swap_probabilities(shares[None])[0]) / 2
    return symmetric
