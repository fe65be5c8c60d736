"""Which records are in which step of an epoch, and which worker works on which of them.

The plan depends on the seed and the records alone, never on the number of workers or on what an earlier process did:
that is why a resumed epoch, or one with other workers, trains the same model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurize.tokens.batches import Indices, budget_batches

POOL = 16  # steps whose records are sorted by length together: little padding, and still other steps in each epoch


@dataclass(frozen=True)
class Step:
    """One step of the optimizer: micro-batches of indices of records, and how many records they hold together."""

    micro_batches: list[Indices]
    records: int


def plan_epoch(
    lengths: npt.NDArray[np.integer], records_per_step: int, tokens_per_batch: int, orders: int, seed: Sequence[int]
) -> list[Step]:
    """The steps of one epoch over records with these lengths (n,) in tokens, each of which gives `orders` sequences.

    `tokens_per_batch` is of a micro-batch, padding included; the least is one record in its orders, however long.
    Every record is in exactly one step. Steps hold records of like lengths, in an order that `seed` decides.
    """
    rng = np.random.default_rng(list(seed))
    shuffled = rng.permutation(len(lengths))
    steps = []
    for start in range(0, len(shuffled), POOL * records_per_step):
        pool = shuffled[start : start + POOL * records_per_step]
        ordered = pool[np.argsort(lengths[pool], kind="stable")]
        for first in range(0, len(ordered), records_per_step):
            records = ordered[first : first + records_per_step]
            batches = budget_batches(lengths[records], max(1, tokens_per_batch // orders))
            steps.append(Step([records[batch] for batch in batches], len(records)))
    return [steps[index] for index in rng.permutation(len(steps))]


def largest_micro_batches(plans: Sequence[list[Step]], lengths: npt.NDArray[np.integer]) -> tuple[Indices, Indices]:
    """Of the micro-batches of all plans the one with the most tokens, padding included, and that of the longest record.

    Between them they take the most memory: by tokens, and by the attention of one sequence. `lengths` (n,) in tokens.
    """
    batches = [batch for plan in plans for step in plan for batch in step.micro_batches]
    longest = [int(lengths[batch].max()) for batch in batches]
    most = max(range(len(batches)), key=lambda index: len(batches[index]) * longest[index])
    return batches[most], batches[max(range(len(batches)), key=lambda index: (longest[index], len(batches[index])))]


def mean_micro_batches(
    lengths: npt.NDArray[np.integer], records_per_step: int, tokens_per_batch: int, orders: int
) -> float:
    """Micro-batches of a step, which workers can share, on average over an epoch."""
    plan = plan_epoch(lengths, records_per_step, tokens_per_batch, orders, seed=(0,))
    return float(np.mean([len(step.micro_batches) for step in plan]))


def steps_of(records: int, records_per_step: int) -> int:
    """Steps of an epoch."""
    return -(-records // records_per_step)


def share_out(sizes: Sequence[int], workers: int) -> list[list[int]]:
    """Indices of micro-batches of these sizes for each worker: the largest first, each to who has least so far."""
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += sizes[index]
    return shares


def learning_rate_at(step: int, steps: int, warm_up: float) -> float:
    """Share of the stage's learning rate at a step (from 0): up in a line over the warm-up, then down to 0."""
    rising = max(1, round(warm_up * steps)) if warm_up > 0 else 0
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)
