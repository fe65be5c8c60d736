"""What the training loop is given: a fold with its records and settings, and where its state and result are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from ray.actor import ActorHandle

    from featurize.tokens.packing import Layout
    from featurize.tokens.truncation import Truncation
    from train.finetune.data import Probabilities, TokenData
    from train.finetune.settings import FineTuning

Point = dict[str, float]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands after an epoch: all that goes on from there as if nothing had happened."""

    stage: int
    epochs: int  # of that stage that are done
    parameters: dict[str, torch.Tensor]  # all that any stage has trained so far
    optimizer: dict[str, torch.Tensor]
    history: list[Point]
    seconds: float  # that it has taken so far


class FoldStore(Protocol):
    """Where a fold's checkpoints and its result are kept. Sent to workers; only the first of them writes."""

    def base(self) -> str:
        """The model to start from: a folder on this machine, or a hub id."""

    def load(self) -> TrainingState | None:
        """The last state saved, or None."""

    def progress(self) -> tuple[int, int] | None:
        """Stage and epochs of the last state saved, or None."""

    def finished(self) -> bool:
        """Whether the result is there."""

    def save(self, state: TrainingState) -> None:
        """Keep a state in place of the one before."""

    def finish(self, model: Path, rows: Rows, held_out: Probabilities, history: list[Point], seconds: float) -> None:
        """Keep the trained model (the files of a folder) and its predictions for the held-out records."""


@dataclass(frozen=True)
class FoldTask:
    """One fold to train: on the records outside it, judged on those inside."""

    fold: int
    layout: Layout
    truncation: Truncation
    max_tokens: int
    data: TokenData
    settings: FineTuning
    store: FoldStore
    progress: ActorHandle | None = None  # train.finetune.fold_trainer.Messages
