"""Gradients and predictions of all workers, added up over torch.distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class PeerLostError(Exception):
    """Another worker ended in the middle of a step. Training resumes from the last checkpoint."""


def sum_gradients(parameters: list[torch.nn.Parameter], loss: float) -> float:
    """Add the gradients and losses of all workers in one exchange. Return the total loss.

    DistributedDataParallel is not used: a worker without a microbatch in a step would block the others there.
    """
    import torch

    parts = [
        torch.zeros_like(parameter).flatten() if parameter.grad is None else parameter.grad.flatten()
        for parameter in parameters
    ]
    flat = torch.cat([*(part.float() for part in parts), torch.tensor([loss], device=parameters[0].device)])
    sum_over_workers(flat)
    start = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = flat[start : start + size].view_as(parameter).to(parameter.dtype)
        start += size
    return float(flat[-1])


def sum_over_workers(values: torch.Tensor) -> None:
    """Add the values of all workers in place. Raises PeerLostError if a worker is gone."""
    import torch.distributed

    try:
        torch.distributed.all_reduce(values)
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error
