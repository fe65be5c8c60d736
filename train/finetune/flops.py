"""Estimate a transformer's costs by its shape: floating-point operations and key-value cache."""

from typing import Any


def forward_flops(config: Any, parameters: int, sequence: float) -> float:  # noqa: ANN401 - of transformers
    """Return the floating-point operations of a forward pass for each token, in sequences of this many tokens.

    They are 2 for each multiplied parameter, plus the operations of attention.
    """
    return 2.0 * non_embedding_parameters(config, parameters) + attention_flops(config, sequence)


def non_embedding_parameters(config: Any, parameters: int) -> int:  # noqa: ANN401 - of transformers
    """Return the number of parameters without the embeddings, which are looked up.

    A judge's head over the vocabulary counts for every token here, but is used for the last one only. So this is an
    upper bound: 7% too high for Llama-3-8B.
    """
    return parameters - int(config.vocab_size) * int(config.hidden_size)


def attention_flops(config: Any, sequence: float) -> float:  # noqa: ANN401 - of transformers
    """Return the forward operations of attention for each token: 4 x layers x width x sequence.

    Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", appendix B. The width is that of all heads.
    A causal kernel that skips later tokens does half.
    """
    heads = int(config.num_attention_heads)
    width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 4.0 * int(config.num_hidden_layers) * width * sequence


def kv_cache_bytes(config: Any, bytes_per_number: int) -> int:  # noqa: ANN401 - of transformers
    """Return the bytes of a decoder's key-value cache for each token, over all layers."""
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return 2 * int(config.num_hidden_layers) * heads * size * bytes_per_number
