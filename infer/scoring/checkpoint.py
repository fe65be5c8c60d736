"""A reference to a checkpoint that scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.model_cache import local_place

if TYPE_CHECKING:
    from core.run import StageResult
    from featurize.tokens.packed_records import Packing
    from train.finetune.checkpoints import Base


@dataclass(frozen=True)
class ScoringCheckpoint:
    """A checkpoint and the training records that it scores: all, or those of the fold it was not trained on."""

    location: str  # a folder's path or URI, or a hub id
    fingerprint: str
    fold: int | None = None

    def header_only(self) -> str:
        """Return a hub id, or a folder on this machine that has everything but the values of the weights."""
        return local_place(self.location, self.fingerprint, outline=True)

    @property
    def reply_folder(self) -> str:
        """Return the folder of its replies, in that of the predictions."""
        return "shards" if self.fold is None else f"shards/fold-{self.fold}"


@dataclass(frozen=True)
class ScoringModel:
    """The checkpoints of a language model, and how records are packed for them."""

    checkpoints: list[ScoringCheckpoint]
    tokens: str  # name of the stage of packed records
    base: Base  # whose tokenizer packs
    packing: Packing
    results: list[StageResult]  # of the stages that made the checkpoints just now
