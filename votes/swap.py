"""Exchange A and B: the symmetry that labels and probabilities share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

if TYPE_CHECKING:
    from core.arrays import Doubles, Labels, Probabilities

SWAPPED_LABEL = np.array([1, 0, 2, 3], dtype=np.int8)  # the first two change places, the rest stay


def win_shares(probabilities: Probabilities) -> Doubles:
    """Return the share (n,) of each record that A wins, from probabilities or vote shares (n, k).

    A tie, and a vote that both are bad, counts as half a win for either answer.
    """
    wins: Doubles = probabilities[:, 0] + probabilities[:, 2:].sum(axis=1) / 2
    return wins


def swap_labels(labels: Labels) -> Labels:
    """Return the labels (n,) of the records with A and B exchanged."""
    return SWAPPED_LABEL[labels]


def swap_probabilities(probabilities: Probabilities) -> Probabilities:
    """Return probabilities (n, k) with A and B exchanged."""
    return probabilities[:, SWAPPED_LABEL[: probabilities.shape[1]]]


def swap_average(probabilities: Probabilities, swapped: Probabilities) -> Probabilities:
    """Return the mean of the predictions (n, k) for both orders; `swapped` holds those for the exchanged order.

    The result is exactly antisymmetric: exchanging the arguments exchanges its columns A and B.
    """
    return (probabilities + swap_probabilities(swapped)) / 2


class PositionEffect(TypedDict):
    """What the order of the answers does to a model, over the records that it reads in both orders."""

    records: int
    flip_rate: float  # share of records whose most probable outcome changes when the answers change places
    first_share: float  # mean share of wins of the answer in first place; 0.5 if the place does not matter


def position_effect(probabilities: Probabilities, swapped: Probabilities) -> PositionEffect:
    """Return the effect on predictions (n, k), n at least 1; `swapped` holds those for the exchanged order."""
    flipped = probabilities.argmax(axis=1) != swap_probabilities(swapped).argmax(axis=1)
    return {
        "records": len(probabilities),
        "flip_rate": float(flipped.mean()),
        "first_share": float(win_shares(np.concatenate([probabilities, swapped])).mean()),
    }
