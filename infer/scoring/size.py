"""Compute the size of a language model from its configuration."""

from __future__ import annotations

from typing import Any

from core.registry import MODES


def load_config_and_size(checkpoint: str, mode: str) -> tuple[Any, int]:
    """Return the configuration of a folder or hub id, and its number of parameters in a scoring mode.

    The model is made on torch's meta device, which has shapes and no numbers, so no weights are read.
    """
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    with torch.device("meta"):
        model = MODES.get(mode).new_model(config)
    return config, sum(parameter.numel() for parameter in model.parameters())
