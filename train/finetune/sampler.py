"""Sample batches: assign records to the steps of an epoch, and microbatches to workers.

The plan depends on the seed and the records only, never on the number of workers or on earlier processes. That is why a
resumed epoch, or one with other workers, trains the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from featurize.tokens.batches import budget_batches

if TYPE_CHECKING:
    from core.arrays import Ints, Mask
    from core.settings.finetune import FinetunedModel

# Steps whose records are sorted by length together. Little is padding, and the steps still differ between epochs.
STEPS_PER_POOL = 16


@dataclass(frozen=True)
class Step:
    """One step of the optimizer: microbatches of indices of records, and the number of records in all of them."""

    microbatches: list[Ints]
    records: int


@dataclass(frozen=True)
class EpochSampler:
    """The steps of every epoch of a training on records with these lengths (n,) in tokens."""

    lengths: npt.NDArray[np.integer]
    settings: FinetunedModel
    seed: int

    def steps(self, stage: int, epoch: int) -> list[Step]:
        """Return the steps of an epoch of a stage, in order."""
        model = self.settings
        seed = (self.seed, stage, epoch)
        return plan_epoch(self.lengths, model.global_batch_size, model.max_tokens_per_microbatch, model.orders, seed)

    def swaps(self, stage: int, epoch: int) -> Mask:
        """Return the mask (n,) of the records whose answers are swapped where a step has one order of each record."""
        generator = np.random.default_rng([self.seed, stage, epoch, 1])
        return generator.integers(2, size=len(self.lengths)).astype(bool)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps of an epoch."""
        return steps_per_epoch(len(self.lengths), self.settings.global_batch_size)

    def largest_microbatches(self, stage: int, epochs: int) -> tuple[Ints, Ints]:
        """Return the largest microbatches of a stage; see the function of this name."""
        return largest_microbatches([self.steps(stage, epoch) for epoch in range(epochs)], self.lengths)


def plan_epoch(
    lengths: npt.NDArray[np.integer],
    global_batch_size: int,
    max_tokens_per_microbatch: int,
    orders: int,
    seed: Sequence[int],
) -> list[Step]:
    """Return the steps of one epoch over records with these lengths (n,) in tokens, each in `orders` sequences.

    Every record is in exactly one step. A step has records of similar lengths; `seed` decides the order of the steps.
    `max_tokens_per_microbatch` includes padding. A microbatch has at least one record in its orders, however long.
    """
    rng = np.random.default_rng(list(seed))
    shuffled = rng.permutation(len(lengths))
    steps = []
    for start in range(0, len(shuffled), STEPS_PER_POOL * global_batch_size):
        pool = shuffled[start : start + STEPS_PER_POOL * global_batch_size]
        ordered = pool[np.argsort(lengths[pool], kind="stable")]
        for first in range(0, len(ordered), global_batch_size):
            records = ordered[first : first + global_batch_size]
            batches = budget_batches(lengths[records], max(1, max_tokens_per_microbatch // orders))
            steps.append(Step([records[batch] for batch in batches], len(records)))
    return [steps[index] for index in rng.permutation(len(steps))]


def largest_microbatches(plans: Sequence[list[Step]], lengths: npt.NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Return the microbatch with the most tokens, padding included, and the one with the longest record.

    They take the most memory: the first by its tokens, the second by the attention of one sequence. `lengths` (n,) are
    in tokens.
    """
    batches = [batch for plan in plans for step in plan for batch in step.microbatches]
    longest = [int(lengths[batch].max()) for batch in batches]
    most = max(range(len(batches)), key=lambda index: len(batches[index]) * longest[index])
    return batches[most], batches[max(range(len(batches)), key=lambda index: (longest[index], len(batches[index])))]


def steps_per_epoch(records: int, global_batch_size: int) -> int:
    """Return the number of steps of an epoch."""
    return -(-records // global_batch_size)


def assign_microbatches(sizes: Sequence[int], workers: int) -> list[list[int]]:
    """Return the indices of each worker's microbatches: the largest first, each to the worker with the least so far."""
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += sizes[index]
    return shares


def learning_rate_at(step: int, steps: int, warmup_ratio: float) -> float:
    """Return the share of the stage's learning rate at a step (from 0): linear warmup, then linear decay to 0."""
    rising = max(1, round(warmup_ratio * steps)) if warmup_ratio > 0 else 0
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)
