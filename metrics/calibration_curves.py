"""Whether probabilities mean what they say: reliability diagrams and confusion."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile
_FEWEST = 25  # records of a bin


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95% score interval of a share (Wilson 1927), which stays inside 0 to 1 for few trials too."""
    share, square = successes / trials, _NORMAL_95**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def equal_count_bins(values: Floats, bins: int) -> npt.NDArray[np.int64]:
    """The bin (n,) of each value, counted from 0: bins of equally many values, as far as equal values allow.

    At most `bins` of them, and fewer where they would hold less than 25 values: what is left would be noise.
    """
    wanted = min(bins, max(1, len(values) // _FEWEST))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, wanted + 1)[1:-1]))
    _, bin_of = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)
    return bin_of


def reliability(probabilities: Floats, outcomes: npt.NDArray[np.bool_], bins: int = 10) -> list[dict[str, Any]]:
    """The reliability diagram of one class: probabilities (n,) given to it against how often it came (n,).

    Bins hold equally many records (adaptive bins: Nixon et al. 2019, "Measuring Calibration in Deep Learning"), because
    preferences are rarely sure and most bins of equal width would be empty. Each has its count, mean probability, share
    of outcomes and the share's 95% interval.
    """
    bin_of = equal_count_bins(probabilities, bins)
    found = []
    for number in range(int(bin_of.max()) + 1):
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
