"""Define references to scoring checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.model_cache import CheckpointRef
    from core.run import StageResult
    from featurize.tokens.packed_records import Packing


@dataclass(frozen=True)
class ScoringCheckpoint:
    """A checkpoint and the training records that it scores: all, or its held-out fold."""

    ref: CheckpointRef
    fold: int | None = None

    @property
    def reply_folder(self) -> str:
        """Folder of its replies, inside the folder of the predictions."""
        return "shards" if self.fold is None else f"shards/fold-{self.fold}"


@dataclass(frozen=True)
class ScoringModel:
    """The checkpoints of a language model, and how records are packed for them."""

    checkpoints: list[ScoringCheckpoint]
    tokens_stage: str  # name of the stage of packed records
    tokenizer: CheckpointRef  # the checkpoint whose tokenizer packs
    packing: Packing
    results: list[StageResult]  # of the stages that made the checkpoints just now
