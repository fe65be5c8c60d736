"""Notes that a user should read before the first step of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from train.finetune.networks import foreign_head
from train.finetune.sampler import plan_epoch
from votes.schema import LABELS

if TYPE_CHECKING:
    from core.model_cache import CheckpointRef
    from core.run import Run
    from core.settings.finetune import FinetunedModel


def training_notes(run: Run, base: CheckpointRef, model: FinetunedModel, lengths: npt.NDArray[np.int32]) -> list[str]:
    """Return notes on data, head and workers. `lengths` (n,) are the tokens of a fold's training records."""
    notes = []
    if run.settings.data.others:
        names = ", ".join(source.name for source in run.settings.data.others)
        notes.append(f"only the first source of votes is used; the other sources ({names}) train boosters only")
    classes = [] if base.in_run or model.compares_answers else foreign_head(base.header_only())
    if classes:
        names = ", ".join(classes[:5]) + (" and more" if len(classes) > 5 else "")
        notes.append(f"{base.location} has a head for {names}; replacing it with one for {', '.join(LABELS)}")
    microbatches = _mean_microbatches(model, lengths)
    if microbatches < model.num_workers:
        notes.append(
            f"{model.num_workers} workers share {microbatches:.1f} microbatches a step, so some are idle: raise "
            "global_batch_size, or lower max_tokens_per_microbatch or num_workers"
        )
    return notes


def _mean_microbatches(model: FinetunedModel, lengths: npt.NDArray[np.int32]) -> float:
    """Return the mean number of microbatches of a step, over one epoch."""
    plan = plan_epoch(lengths, model.global_batch_size, model.max_tokens_per_microbatch, model.orders, seed=(0,))
    return float(np.mean([len(step.microbatches) for step in plan]))
