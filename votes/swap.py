"""Exchanging A and B: the symmetry that labels, probabilities and records share."""

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SWAPPED_LABEL = np.array([1, 0, 2], dtype=np.int8)


def half_wins(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What A wins of each record (n,), from probabilities or one-hot votes (n, 3): a tie is half a win for either."""
    wins: npt.NDArray[np.float64] = probabilities[:, 0] + probabilities[:, 2] / 2
    return wins


def swap_labels(labels: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Labels (n,) of the records with A and B exchanged."""
    return SWAPPED_LABEL[labels]


def swap_probabilities(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities (n, 3) in the order A, B, tie, with A and B exchanged."""
    return probabilities[:, SWAPPED_LABEL]


def swap_average(probabilities: npt.NDArray[np.float64], swapped: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean of the predictions (n, 3) for both orders of each record; `swapped` holds those for the exchanged order.

    The result is exactly antisymmetric: exchanging the arguments exchanges its columns A and B.
    """
    return (probabilities + swap_probabilities(swapped)) / 2


class PositionEffect(TypedDict):
    """What the order of the answers does to a model, over the records that it reads in both."""

    records: int
    flip_rate: float  # share whose most probable outcome is another one when the answers change places
    first_share: float  # mean share of wins, ties as halves, of the answer that stands first; 0.5 if it does not matter


def position_effect(probabilities: npt.NDArray[np.float64], swapped: npt.NDArray[np.float64]) -> PositionEffect:
    """The effect on predictions (n, 3), n at least 1; `swapped` holds those for the exchanged order."""
    flipped = probabilities.argmax(axis=1) != swap_probabilities(swapped).argmax(axis=1)
    return {
        "records": len(probabilities),
        "flip_rate": float(flipped.mean()),
        "first_share": float(half_wins(np.concatenate([probabilities, swapped])).mean()),
    }


def swap_records(records: pa.Table) -> pa.Table:
    """The same records with A and B exchanged, labels too where there are any."""
    renamed = {"response_a": "response_b", "response_b": "response_a", "model_a": "model_b", "model_b": "model_a"}
    names = records.column_names
    swapped = records.rename_columns([renamed.get(name, name) for name in names]).select(names)
    if "label" in names:
        labels = swap_labels(records["label"].to_numpy())
        swapped = swapped.set_column(names.index("label"), records.schema.field("label"), pa.array(labels))
    return swapped
