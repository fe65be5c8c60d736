"""What a transformer takes by its shape: floating-point operations, and memory for the keys and values it keeps."""

from typing import Any


def forward_operations(config: Any, parameters: int, sequence: float) -> float:  # noqa: ANN401 - of transformers
    """Floating-point operations of a forward pass for each token, in sequences of so many tokens.

    2 for each parameter that is multiplied, and those of attention.
    """
    return 2.0 * multiplied_parameters(config, parameters) + attention_operations(config, sequence)


def multiplied_parameters(config: Any, parameters: int) -> int:  # noqa: ANN401 - of transformers
    """All parameters but the embeddings, which are looked up.

    Those of a head over the vocabulary, which a judge has, count for every token here and are used for the last alone:
    an upper bound, by 7% for Llama-3-8B.
    """
    return parameters - int(config.vocab_size) * int(config.hidden_size)


def attention_operations(config: Any, sequence: float) -> float:  # noqa: ANN401 - of transformers
    """Operations for each token of attention's scores and their use, forward: 4 x layers x width x sequence.

    Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", appendix B. The width is that of all heads.
    A causal kernel that skips what lies ahead does half.
    """
    heads = int(config.num_attention_heads)
    width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 4.0 * int(config.num_hidden_layers) * width * sequence


def cache_bytes(config: Any, bytes_per_number: int) -> int:  # noqa: ANN401 - of transformers
    """Bytes of the keys and values that a decoder keeps for each token, over all layers."""
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return 2 * int(config.num_hidden_layers) * heads * size * bytes_per_number
