"""Check before a stage's first step that it fits into the GPU's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import InputError

if TYPE_CHECKING:
    import torch

    from train.finetune.forward import FoldNetwork
    from train.finetune.task import OrderedRecord


def check_memory(
    network: FoldNetwork,
    stage: int,
    parameters: dict[str, torch.nn.Parameter],
    microbatches: Sequence[Sequence[OrderedRecord]],
    longest: int,
) -> None:
    """Run a forward and a backward pass over a stage's largest microbatches, and discard the gradients.

    `microbatches` are the one with the most tokens and the one with the longest sequence, of `longest` tokens. Raises
    InputError if the memory is too small.
    """
    import torch

    try:
        device = next(iter(parameters.values())).device
        # As large as AdamW's moments, which the first step creates.
        moments = torch.empty(2 * sum(parameter.numel() for parameter in parameters.values()), device=device)
        for parameter in parameters.values():  # gradients exist from a step's second microbatch on
            parameter.grad = torch.zeros_like(parameter)
        for examples in microbatches:
            network.loss(examples).backward()
        del moments
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the trained parameters of stage {stage + 1} and its largest microbatches, of up to "
            f"{len(microbatches[0])} sequences or {longest} tokens, do not fit into the GPU's memory",
            "max_tokens_per_microbatch",
            "lower it or max_tokens, or set gradient_checkpointing: true or dtype: bfloat16.",
        ) from error
    for parameter in parameters.values():
        parameter.grad = None
