"""Check whether probabilities match frequencies: reliability diagrams and confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.arrays import Doubles, Ints, Mask, Probabilities
    from votes.arrays import Votes

_NORMAL_95 = 1.959964  # the normal distribution's 97.5% quantile
_MIN_BIN_RECORDS = 25  # in smaller bins the share of outcomes is noise


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Return the 95% score interval of a share (Wilson 1927). It stays inside 0 to 1 for few trials, too."""
    share, square = successes / trials, _NORMAL_95**2 / trials
    middle = (share + square / 2) / (1 + square)
    half = np.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def equal_count_bins(values: Doubles, bins: int) -> Ints:
    """Return the bin (n,) of each value, counted from 0. Bins hold equally many values, as far as ties allow.

    There are at most `bins`, and fewer if bins would hold less than 25 values.
    """
    count = min(bins, max(1, len(values) // _MIN_BIN_RECORDS))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    _, bin_of = np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)
    return bin_of


def reliability_diagram(
    probabilities: Doubles, outcomes: Mask, weights: Doubles | None = None, bins: int = 10
) -> list[dict[str, Any]]:
    """Return the reliability diagram of one class from its probabilities (n,) and whether it occurred (n,).

    `weights` (n,) are the votes of each row, 1 if not given.

    Bins hold equally many records (adaptive bins: Nixon et al. 2019, "Measuring Calibration in Deep Learning").
    Preferences are rarely certain, so most bins of equal width would be empty. Each bin has its count, its mean
    probability, its share of outcomes and the 95% interval of that share.
    """
    votes = np.ones(len(outcomes)) if weights is None else weights
    bin_of = equal_count_bins(probabilities, bins)
    diagram = []
    for number in range(int(bin_of.max()) + 1):
        inside = bin_of == number
        count, occurred = float(votes[inside].sum()), float((outcomes * votes)[inside].sum())
        diagram.append(
            {
                "count": int(count) if count.is_integer() else round(count, 6),
                "predicted": float(np.average(probabilities[inside], weights=votes[inside])),
                "observed": occurred / count,
                "ci95": list(wilson_interval(occurred, count)),
            }
        )
    return diagram


def diagram_error(diagram: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean |predicted - observed| of the bins of a reliability diagram, weighted by their votes."""
    gaps = [abs(part["predicted"] - part["observed"]) for part in diagram]
    return float(np.average(gaps, weights=[part["count"] for part in diagram]))


def confusion_matrix(probabilities: Probabilities, votes: Votes) -> Doubles:
    """Return counts (k, k) of votes by outcome (rows) and most probable class (columns)."""
    counts = np.zeros((votes.classes, votes.classes))
    np.add.at(counts, (votes.labels, probabilities.argmax(axis=1)), votes.weights)
    return counts


def histogram(probabilities: Doubles, bins: int = 20) -> list[int]:
    """Return counts (bins,) of probabilities (n,) in bins of equal width from 0 to 1."""
    counts, _ = np.histogram(probabilities, bins, (0.0, 1.0))
    return [int(count) for count in counts]
