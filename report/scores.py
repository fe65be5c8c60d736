"""Scores of every baseline, model and blend on the training records, all out-of-fold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from metrics.calibration_curves import confusion, histogram, reliability
from metrics.intervals import bootstrap_means, bootstrap_parts, interval
from metrics.scores import accuracy, expected_calibration_error, record_log_loss
from votes.schema import LABELS

Floats = npt.NDArray[np.float64]


def side_by_side(
    sets: Mapping[str, Mapping[str, Floats]], labels: npt.NDArray[np.int8], groups: npt.NDArray[np.int64], seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores by kind and name of probabilities (n, 3), with 95% intervals of the log loss.

    One bootstrap for all, so that every interval rests on the same draws of prompts.
    """
    losses = {
        (kind, name): record_log_loss(values, labels) for kind, named in sets.items() for name, values in named.items()
    }
    means = bootstrap_means(np.stack(list(losses.values()), axis=1), groups, seed=seed)
    scored: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in sets}
    for n, (kind, name) in enumerate(losses):
        scored[kind][name] = {**scores(sets[kind][name], labels), "ci95": list(interval(means[:, n]))}
    return scored


def scores(probabilities: Floats, labels: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Scores of probabilities (n, 3) against votes (n,); the loss by vote is the mean over the records of that vote."""
    losses = record_log_loss(probabilities, labels)
    by_vote = {label: losses[labels == n] for n, label in enumerate(LABELS)}
    return {
        "oof_log_loss": float(losses.mean()),
        "accuracy": accuracy(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "log_loss_by_vote": {label: float(some.mean()) if len(some) else None for label, some in by_vote.items()},
    }


def gains(
    blend: Floats,
    others: Mapping[str, Floats],
    labels: npt.NDArray[np.int8],
    groups: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """By how much each of the other predictions' log loss exceeds the blend's, with 95% intervals; above 0 it gains."""
    ours = record_log_loss(blend, labels)
    more = np.stack([record_log_loss(values, labels) - ours for values in others.values()], axis=1)
    means = bootstrap_means(more, groups, seed=seed)
    return {
        name: {"gain": float(more[:, n].mean()), "gain_ci95": list(interval(means[:, n]))}
        for n, name in enumerate(others)
    }


def on_parts(
    parts: npt.NDArray[np.bool_], losses: Floats, groups: npt.NDArray[np.int64], seed: int
) -> list[dict[str, Any]]:
    """For each part (n, k) of the records the mean of their losses (n,), and by how much it exceeds that of all.

    With 95% intervals that draw whole prompts; that of the difference draws both parts of it together.
    """
    means = bootstrap_parts(losses, parts, groups, seed=seed)
    return [
        {
            "rows": int(rows.sum()),
            "oof_log_loss": float(losses[rows].mean()),
            "ci95": list(interval(means[:, n])),
            "difference": float(losses[rows].mean() - losses.mean()),
            "difference_ci95": list(interval(means[:, n] - means[:, -1])),
        }
        for n, rows in enumerate(parts.T)
    ]


def calibration(blend: Floats, labels: npt.NDArray[np.int8]) -> dict[str, Any]:
    """Reliability diagram and histogram of each class's probabilities, and the confusion of votes and predictions."""
    return {
        "reliability": {label: reliability(blend[:, n], labels == n) for n, label in enumerate(LABELS)},
        "histogram": {label: histogram(blend[:, n]) for n, label in enumerate(LABELS)},
        "confusion": {
            vote: dict(zip(LABELS, row, strict=True))
            for vote, row in zip(LABELS, confusion(blend, labels).tolist(), strict=True)
        },
    }
