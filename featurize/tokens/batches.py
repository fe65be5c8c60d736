"""Build batches of token ids within a token budget. Similar lengths keep padding low."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from core.arrays import Ints

IdArrays = Sequence[npt.NDArray[np.integer]]


def budget_batches(lengths: npt.NDArray[np.integer], budget: int) -> list[Ints]:
    """Return batches of indices of sequences with these lengths (n,), padded to at most `budget` tokens each.

    A batch's rows times its longest sequence stay within the budget; a longer sequence is a batch of its own. The
    longest sequences come first, so that a lack of memory shows at once.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def model_inputs(sequences: IdArrays, pad_id: int, parts: IdArrays | None = None) -> dict[str, Ints]:
    """Return a model's inputs: padded ids, their mask, and each id's part of the record if `parts` are given.

    Without padding there is no mask, since attention is faster without one.
    """
    ids, mask = pad(sequences, pad_id)
    inputs = {"input_ids": ids}
    if not mask.all():
        inputs["attention_mask"] = mask
    if parts is not None:
        inputs["parts"], _ = pad(parts, 0)
    return inputs


def pad(sequences: IdArrays, pad_id: int) -> tuple[Ints, Ints]:
    """Return right-padded ids and their mask (1 for a token, 0 for padding), both (sequences, longest)."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), pad_id, np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
