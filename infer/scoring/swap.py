"""Score records in one or both orders, and turn the replies into predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from infer.scoring.requests import ORDERS, apply_temperature, select_most_uncertain
from votes.swap import swap_average

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.settings.llm import Llm
    from infer.scoring.checkpoint import ScoringCheckpoint
    from infer.scoring.requests import OrderMasks, RecordMasks, Replies, RequestIndex


class CheckpointRequester(Protocol):
    """Sends a checkpoint the selected unanswered requests, and returns all its replies. In the second round of swap:
    uncertain, failed requests are not sent again.
    """

    def __call__(self, checkpoint: ScoringCheckpoint, masks: OrderMasks, second_round: bool) -> Replies:
        """Return the replies to all requests of the index."""


@dataclass(frozen=True)
class CheckpointScores:
    """The predictions of one checkpoint (nan where missing), and their costs."""

    masks: RecordMasks  # the scored records
    probabilities: Mapping[str, Probabilities]  # by split, (n, k)
    reasons: Mapping[str, Mapping[int, str]]  # by split and row, of records that failed
    requests: int  # with repeated ones
    distinct: int
    both_orders: Mapping[str, tuple[Probabilities, Probabilities]]  # by split: of records asked in both, (m, k) each
    tokens: int
    seconds: float


def score_records(
    llm: Llm,
    index: RequestIndex,
    checkpoints: Sequence[ScoringCheckpoint],
    records: Sequence[RecordMasks],
    ask: CheckpointRequester,
) -> list[CheckpointScores]:
    """Score each checkpoint's `records`: in one order, in both, or the least sure of them in both.

    Which records are least sure is decided for a whole split, by the first order's predictions of all checkpoints.
    """
    both = llm.swap == "both"
    orders = [{split: np.stack([mask, mask & both], axis=1) for split, mask in masks.items()} for masks in records]
    replies = [ask(checkpoint, masks, False) for checkpoint, masks in zip(checkpoints, orders, strict=True)]
    if llm.swap == "uncertain":
        unsure = _least_sure(llm, index, records, replies)
        for masks in orders:
            for split, mask in masks.items():
                mask[:, 1] = mask[:, 0] & unsure[split]
        replies = [ask(checkpoint, masks, True) for checkpoint, masks in zip(checkpoints, orders, strict=True)]
    return [_scores(llm, index, *parts) for parts in zip(records, orders, replies, strict=True)]


def _least_sure(
    llm: Llm, index: RequestIndex, records: Sequence[RecordMasks], replies: Sequence[Replies]
) -> RecordMasks:
    chosen = {}
    for split, numbers in index.numbers.items():
        total, count = np.zeros((len(numbers), index.classes)), np.zeros((len(numbers), 1))
        for masks, reply in zip(records, replies, strict=True):
            first = apply_temperature(reply.probabilities[numbers[:, 0]], llm.temperature)
            scored = masks[split] & ~np.isnan(first[:, 0])
            total[scored] += first[scored]
            count[scored] += 1
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        chosen[split] = select_most_uncertain(mean, llm.uncertain_share)
    return chosen


def _scores(
    llm: Llm, index: RequestIndex, records: RecordMasks, orders: OrderMasks, replies: Replies
) -> CheckpointScores:
    """Turn the replies to one checkpoint's requests into predictions for records."""
    values = apply_temperature(replies.probabilities, llm.temperature)
    probabilities, reasons, both_orders = {}, {}, {}
    for split, mask in orders.items():
        numbers = index.numbers[split]
        first, second = (np.where(mask[:, [n]], values[numbers[:, n]], np.nan) for n in range(len(ORDERS)))
        probabilities[split] = np.where(mask[:, [1]], swap_average(first, second), first)
        failed = np.isnan(probabilities[split][:, 0])
        in_both = mask[:, 1] & ~failed
        both_orders[split] = first[in_both], second[in_both]
        lost = np.flatnonzero(mask[:, 0] & failed).tolist()
        reasons[split] = {row: _reason(replies, numbers[row].tolist()) for row in lost}
    distinct, tokens = index.count(orders)
    return CheckpointScores(
        masks=records,
        probabilities=probabilities,
        reasons=reasons,
        requests=int(sum(mask.sum() for mask in orders.values())),
        distinct=distinct,
        both_orders=both_orders,
        tokens=tokens,
        seconds=float(replies.seconds[index.selected(orders)].sum()),
    )


def _reason(replies: Replies, numbers: list[int]) -> str:
    return next((replies.reasons[number] for number in numbers if number in replies.reasons), "no reply")
