"""Whether probabilities mean what they say: reliability diagrams and confusion."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95% score interval of a share (Wilson 1927), which stays inside 0 to 1 for few trials too."""
    share, square = successes / trials, _NORMAL_95**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def reliability(probabilities: Floats, outcomes: npt.NDArray[np.bool_], bins: int = 10) -> list[dict[str, Any]]:
    """The reliability diagram of one class: probabilities (n,) given to it against how often it came (n,).

    Bins hold equally many records, as far as equal probabilities allow (adaptive bins: Nixon et al. 2019, "Measuring
    Calibration in Deep Learning"): preferences are rarely sure, so that most bins of equal width would be empty. Each
    has its count, mean probability, share of outcomes and the share's 95% interval.
    """
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, probabilities, side="left")
    found = []
    for number in np.unique(bin_of):
        inside = bin_of == number
        count, came = int(inside.sum()), float(outcomes[inside].sum())
        found.append(
            {
                "count": count,
                "predicted": float(probabilities[inside].mean()),
                "observed": came / count,
                "ci95": list(wilson_interval(came, count)),
            }
        )
    return found


def confusion(probabilities: Floats, labels: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """Counts (3, 3) of records by vote (rows) and most probable class (columns)."""
    counts = np.zeros((3, 3), np.int64)
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    return counts


def histogram(probabilities: Floats, bins: int = 20) -> list[int]:
    """Counts (bins,) of probabilities (n,) in bins of equal width from 0 to 1."""
    counts, _ = np.histogram(probabilities, bins, (0.0, 1.0))
    return [int(count) for count in counts]
