"""Batches of token ids, cut by a token budget from sequences of like lengths, so that little of a batch is padding."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Ids = Sequence[npt.NDArray[np.integer]]


def budget_batches(lengths: npt.NDArray[np.integer], budget: int) -> list[Indices]:
    """Indices of sequences with these lengths (n,), longest first, in batches that pad to at most `budget` tokens.

    Rows times the longest of a batch stay within the budget; a sequence that exceeds it alone is a batch of its own.
    Longest first, so that what does not fit into memory shows at once.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def model_inputs(sequences: Ids, pad_id: int, parts: Ids | None = None) -> dict[str, Indices]:
    """What a model is called with: padded ids, their mask if there is padding, and their parts if it asks for them.

    Without padding there is no mask, since attention is faster without one.
    """
    ids, mask = pad(sequences, pad_id)
    inputs = {"input_ids": ids}
    if not mask.all():
        inputs["attention_mask"] = mask
    if parts is not None:
        inputs["parts"], _ = pad(parts, 0)
    return inputs


def pad(sequences: Ids, pad_id: int) -> tuple[Indices, Indices]:
    """Right-padded ids and their mask (1 where there is a token), both (sequences, longest)."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
