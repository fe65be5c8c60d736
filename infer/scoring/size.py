"""How large a language model is, from its configuration alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infer.scoring.engine_settings import Mode


def load_shape(checkpoint: str, mode: Mode) -> tuple[Any, int]:
    """The configuration of a folder or hub id, and its number of parameters.

    The model is made on torch's meta device, which has shapes and no numbers, so that no weights are read.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from votes.schema import LABELS

    config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    kind = AutoModelForSequenceClassification if mode == "classify" else AutoModelForCausalLM
    if mode == "classify":
        config.num_labels = len(LABELS)
    with torch.device("meta"):
        model = kind.from_config(config)
    return config, sum(parameter.numel() for parameter in model.parameters())
