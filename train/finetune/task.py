"""Define the input of the training loop: a fold's records and settings, and the store of its results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from ray.actor import ActorHandle

    from core.arrays import Probabilities, Rows
    from core.settings.finetune import FinetunedModel
    from train.finetune.data import TokenData

CurvePoint = dict[str, float]  # of the training curves: one optimizer step
OrderedRecord = tuple[int, bool]  # a record, and whether its answers are swapped


@dataclass(frozen=True)
class TrainingState:
    """The state after an epoch: everything needed to resume with the same results."""

    stage: int
    epochs: int  # finished ones of that stage
    parameters: dict[str, torch.Tensor]  # all that any stage has trained so far
    optimizer: dict[str, torch.Tensor]
    history: list[CurvePoint]
    seconds: float  # of training so far


class FoldStore(Protocol):
    """Keeps a fold's checkpoints and its result. It is sent to all workers; only the first one writes."""

    def base(self) -> str:
        """Return the model to start from: a folder on this machine, or a hub id."""

    def load(self) -> TrainingState | None:
        """Return the last state saved, or None."""

    def progress(self) -> tuple[int, int] | None:
        """Return stage and finished epochs of the last state saved, or None."""

    def finished(self) -> bool:
        """Return whether the result is complete."""

    def save(self, state: TrainingState) -> None:
        """Replace the saved state."""

    def finish(
        self, model: Path, rows: Rows, held_out: Probabilities, history: list[CurvePoint], seconds: float
    ) -> None:
        """Keep the trained model (the files of a folder) and its predictions for the held-out records."""


@dataclass(frozen=True)
class FoldTask:
    """One fold to train: on the records outside it, scored on the records inside."""

    fold: int
    seed: int
    settings: FinetunedModel
    data: TokenData
    store: FoldStore
    progress: ActorHandle | None = None  # train.finetune.fold_trainer.ProgressLog
