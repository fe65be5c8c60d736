"""Score sets of predictions on the training records, all out-of-fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.intervals import bootstrap_means, bootstrap_part_means, percentile_interval
from metrics.scores import accuracy, expected_calibration_error, record_log_loss
from votes.schema import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Doubles, Groups, Labels, Mask, Probabilities
    from votes.arrays import Votes


def score_sets(
    sets: Mapping[str, Mapping[str, Probabilities]], votes: Votes, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return scores of probabilities (n, 3) by kind and name, with 95% intervals of the log loss.

    There is one bootstrap for all sets, so that every interval rests on the same draws of prompts.
    """
    losses = {
        (kind, name): record_log_loss(values, votes.labels)
        for kind, by_name in sets.items()
        for name, values in by_name.items()
    }
    means = bootstrap_means(np.stack(list(losses.values()), axis=1), votes.groups, seed=seed)
    scored: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in sets}
    for n, (kind, name) in enumerate(losses):
        scored[kind][name] = {
            **score_predictions(sets[kind][name], votes.labels),
            "ci95": list(percentile_interval(means[:, n])),
        }
    return scored


def score_predictions(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Return scores of probabilities (n, 3) against votes (n,). The loss by vote is the mean over its records."""
    losses = record_log_loss(probabilities, labels)
    by_vote = {label: losses[labels == n] for n, label in enumerate(LABELS)}
    return {
        "oof_log_loss": float(losses.mean()),
        "accuracy": accuracy(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels),
        "log_loss_by_vote": {label: float(values.mean()) if len(values) else None for label, values in by_vote.items()},
    }


def blend_gains(
    others: Mapping[str, Probabilities], blend: Probabilities, votes: Votes, seed: int
) -> dict[str, dict[str, Any]]:
    """Return by how much the log loss of each other set exceeds the blend's, with 95% intervals.

    A gain above 0 means that the blend is better.
    """
    blend_losses = record_log_loss(blend, votes.labels)
    excess = np.stack([record_log_loss(values, votes.labels) - blend_losses for values in others.values()], axis=1)
    means = bootstrap_means(excess, votes.groups, seed=seed)
    return {
        name: {"gain": float(excess[:, n].mean()), "gain_ci95": list(percentile_interval(means[:, n]))}
        for n, name in enumerate(others)
    }


def score_parts(parts: Mask, losses: Doubles, groups: Groups, seed: int) -> list[dict[str, Any]]:
    """Return the mean loss (n,) of each part (n, k) of the records, and its difference from the overall mean.

    The 95% intervals draw whole prompts. The interval of the difference draws both means together.
    """
    means = bootstrap_part_means(losses, parts, groups, seed=seed)
    return [
        {
            "rows": int(rows.sum()),
            "oof_log_loss": float(losses[rows].mean()),
            "ci95": list(percentile_interval(means[:, n])),
            "difference": float(losses[rows].mean() - losses.mean()),
            "difference_ci95": list(percentile_interval(means[:, n] - means[:, -1])),
        }
        for n, rows in enumerate(parts.T)
    ]
