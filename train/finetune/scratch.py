"""An encoder without pre-training: random weights, and a tokenizer made from the records it will be trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from featurize.tokens.packing import CUE, CUT, EMPTY, HEADINGS, MISSING, NULL
from votes.schema import LABELS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Architecture = Literal["deberta-v2", "bert"]

_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
_PAD, _CLS, _SEP = range(3)
# Weights of standard deviation 0.1 learn faster in small models than the usual 0.02; see demo.tiny_llm.
_SPREAD = 0.1


def build_scratch(
    folder: Path,
    texts: Iterator[str],
    architecture: Architecture,
    layers: int,
    hidden: int,
    heads: int,
    vocabulary: int,
    max_tokens: int,
    seed: int,
) -> int:
    """Write such an encoder to `folder` and return the size of its vocabulary.

    The tokenizer is a byte-level BPE of `texts`. DeBERTa's attention has no absolute positions, BERT's has
    `max_tokens`. Dropout is off: a model this small has nothing to spare.
    """
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
    )

    tokenizer = _train_tokenizer(texts, vocabulary, max_tokens)
    tokenizer.save_pretrained(folder)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": max_tokens,
        "pad_token_id": _PAD,
        "initializer_range": _SPREAD,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "type_vocab_size": 0 if architecture == "deberta-v2" else 1,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "bert":
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
                "pooler_hidden_size": hidden,
                "pooler_dropout": 0.0,
            }
            model = DebertaV2ForSequenceClassification(DebertaV2Config(**shape, **relative))
        model.save_pretrained(folder)
    return len(tokenizer)


def _train_tokenizer(texts: Iterator[str], vocabulary: int, max_tokens: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def corpus() -> Iterator[str]:
        yield from [*HEADINGS, CUE, CUT, NULL, EMPTY, MISSING] * 200  # often enough to become tokens of their own
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
