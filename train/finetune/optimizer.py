"""Build AdamW for one stage, and store its state as plain tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from core.settings.finetune import TrainingStage


def build_optimizer(parameters: dict[str, torch.nn.Parameter], stage: TrainingStage) -> torch.optim.Optimizer:
    """Return AdamW without weight decay of biases and norms, which have one dimension."""
    import torch

    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=stage.learning_rate)


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """Return AdamW's moments and step counts, named by the parameter and the key, joined by a bar."""
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
    """Put the result of `optimizer_state` into a new optimizer of the same parameters."""
    for joined, value in saved.items():
        name, key = joined.rsplit("|", 1)
        parameter = parameters[name]
        # AdamW keeps its step counts on the CPU.
        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
