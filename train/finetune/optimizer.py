"""AdamW for one stage, and its state as plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from train.finetune.settings import TrainingStage


def new_optimizer(parameters: dict[str, torch.nn.Parameter], stage: TrainingStage) -> torch.optim.Optimizer:
    """AdamW without decay of biases and norms, which have one dimension."""
    import torch

    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.learning_rate)


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts by the parameter's name and their own, joined by a bar."""
    return {
        f"{name}|{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    saved: dict[str, torch.Tensor],
) -> None:
    """Put what `optimizer_state` gave into a new optimizer of the same parameters."""
    for joined, value in saved.items():
        name, key = joined.rsplit("|", 1)
        parameter = parameters[name]
        # AdamW keeps its step counts on the CPU.
        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
