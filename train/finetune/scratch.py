"""Build an encoder without pre-training: random weights, and a tokenizer trained on the training records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurize.tokens.packing import TEMPLATE
from votes.schema import LABELS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from core.settings.finetune import Scratch

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
_PAD = 0
# Weights of standard deviation 0.1 learn faster in small models than the usual 0.02; see demo.tiny_llm.
_SPREAD = 0.1


def build_scratch(
    folder: Path,
    texts: Iterator[str],
    settings: Scratch,
    max_tokens: int,
    seed: int,
    labels: Sequence[str] = LABELS[:3],
) -> int:
    """Write the encoder to `folder`, and return the size of its vocabulary.

    The tokenizer is a byte-level BPE of `texts`. DeBERTa's attention has no absolute positions; BERT's has `max_tokens`
    of them. There is no dropout, since a model this small underfits.
    """
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
    )

    tokenizer = _train_tokenizer(texts, settings.vocabulary, max_tokens)
    tokenizer.save_pretrained(folder)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": settings.hidden,
        "intermediate_size": 4 * settings.hidden,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": max_tokens,
        "pad_token_id": _PAD,
        "initializer_range": _SPREAD,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "type_vocab_size": 0 if settings.architecture == "deberta-v2" else 1,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.architecture == "bert":
            model = BertForSequenceClassification(BertConfig(**shape))
        else:
            # As in DeBERTaV3: relative positions in logarithmic buckets, shared with the content's projections.
            relative = {
                "relative_attention": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_buckets": 64,
                "max_relative_positions": -1,
                "position_biased_input": False,
                "share_att_key": True,
                "norm_rel_ebd": "layer_norm",
                "pooler_hidden_size": settings.hidden,
                "pooler_dropout": 0.0,
            }
            model = DebertaV2ForSequenceClassification(DebertaV2Config(**shape, **relative))
        model.save_pretrained(folder)
    return len(tokenizer)


def _train_tokenizer(texts: Iterator[str], vocabulary: int, max_tokens: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def corpus() -> Iterator[str]:
        yield from list(TEMPLATE) * 200  # often enough to become tokens of their own
        yield from texts

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    pad, cls, sep, unknown, mask = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        cls_token=cls,
        sep_token=sep,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=max_tokens,
    )
