"""Score sets of predictions on the training records, all out-of-fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.intervals import bootstrap_means, bootstrap_part_means, percentile_interval
from metrics.scores import accuracy, expected_calibration_error, record_log_loss
from votes.schema import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Doubles, Mask, Probabilities
    from votes.arrays import Votes


def score_sets(
    sets: Mapping[str, Mapping[str, Probabilities]], votes: Votes, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return scores of probabilities (m, k) by kind and name, with 95% intervals of the log loss.

    There is one bootstrap for all sets, so that every interval rests on the same draws of prompts.
    """
    losses = {
        (kind, name): record_log_loss(values, votes.labels)
        for kind, by_name in sets.items()
        for name, values in by_name.items()
    }
    means = bootstrap_means(np.stack(list(losses.values()), axis=1), votes.groups, votes.weights, seed=seed)
    scored: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in sets}
    for n, (kind, name) in enumerate(losses):
        scored[kind][name] = {
            **score_predictions(sets[kind][name], votes),
            "ci95": list(percentile_interval(means[:, n])),
        }
    return scored


def score_predictions(probabilities: Probabilities, votes: Votes) -> dict[str, Any]:
    """Return scores of probabilities (m, k) against votes. The loss by vote is the mean over an outcome's votes."""
    losses = record_log_loss(probabilities, votes.labels)
    by_vote = {label: votes.labels == n for n, label in enumerate(LABELS[: votes.classes])}
    return {
        "oof_log_loss": float(votes.mean(losses)),
        "accuracy": accuracy(probabilities, votes.labels, votes.weights),
        "ece": expected_calibration_error(probabilities, votes.labels, votes.weights),
        "log_loss_by_vote": {
            label: float(votes.take(rows).mean(losses[rows])) if rows.any() else None for label, rows in by_vote.items()
        },
    }


def blend_gains(
    others: Mapping[str, Probabilities], blend: Probabilities, votes: Votes, seed: int
) -> dict[str, dict[str, Any]]:
    """Return by how much the log loss of each other set exceeds the blend's, with 95% intervals.

    A gain above 0 means that the blend is better.
    """
    blend_losses = record_log_loss(blend, votes.labels)
    excess = np.stack([record_log_loss(values, votes.labels) - blend_losses for values in others.values()], axis=1)
    means = bootstrap_means(excess, votes.groups, votes.weights, seed=seed)
    return {
        name: {"gain": float(votes.mean(excess[:, n])), "gain_ci95": list(percentile_interval(means[:, n]))}
        for n, name in enumerate(others)
    }


def score_parts(parts: Mask, losses: Doubles, votes: Votes, seed: int) -> list[dict[str, Any]]:
    """Return the mean loss (m,) of each part (m, parts) of the votes, and its difference from the overall mean.

    The 95% intervals draw whole prompts. The interval of the difference draws both means together.
    """
    means = bootstrap_part_means(losses, parts, votes.groups, votes.weights, seed=seed)
    overall = votes.mean(losses)
    return [
        {
            "rows": len(votes.take(rows).first),
            "oof_log_loss": float(votes.take(rows).mean(losses[rows])),
            "ci95": list(percentile_interval(means[:, n])),
            "difference": float(votes.take(rows).mean(losses[rows]) - overall),
            "difference_ci95": list(percentile_interval(means[:, n] - means[:, -1])),
        }
        for n, rows in enumerate(parts.T)
    ]
