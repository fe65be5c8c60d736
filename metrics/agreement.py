"""Agreement of a judge with people: Cohen's kappa, intervals, and AlpacaEval's measures of an evaluator.

A judge's verdict on a record is a share of each outcome: one outcome, or the mean of verdicts in both orders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from metrics.intervals import bootstrap_means, percentile_interval

if TYPE_CHECKING:
    from core.arrays import Doubles, Labels, Mask, Probabilities
    from votes.arrays import Votes

LONGER_BY: Final = 30  # characters by which an answer is longer; AlpacaEval's `significant_delta_length`


def label_agreement(verdicts: Probabilities, labels: Labels) -> Doubles:
    """Return the share (m,) of each row's verdicts (m, k) that is for the outcome of its vote (m,)."""
    shares: Doubles = verdicts[np.arange(len(labels)), labels]
    return shares


def cohen_kappa(agreement: Any, verdicts: Any, votes: Any) -> Any:  # noqa: ANN401 - numbers, or arrays of samples
    """Return Cohen's kappa from the mean agreement (...), and the mean shares of outcomes (..., k) of both sides.

    It is 1 for full agreement and 0 for what independent choices with these shares give (Cohen 1960). It is nan where
    both sides always take the same outcome.
    """
    chance = (verdicts * votes).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (agreement - chance) / (1 - chance), np.nan)


def score_agreement(verdicts: Probabilities, votes: Votes, seed: int) -> dict[str, Any]:
    """Return agreement and kappa of verdicts (m, k) with votes, each with its 95% interval over prompts."""
    agreement = label_agreement(verdicts, votes.labels)
    columns = np.concatenate([agreement[:, None], verdicts, votes.shares], axis=1)
    samples = bootstrap_means(columns, votes.groups, votes.weights, seed=seed)
    k = votes.classes

    def kappa(means: Doubles) -> Any:  # noqa: ANN401 - as cohen_kappa
        return cohen_kappa(means[..., 0], means[..., 1 : k + 1], means[..., k + 1 :])

    values = votes.mean(columns)
    by_kappa = kappa(samples)
    return {
        "agreement": float(values[0]),
        "agreement_ci95": list(percentile_interval(samples[:, 0])),
        "kappa": _number(kappa(values)),
        "kappa_ci95": list(percentile_interval(by_kappa)) if not np.isnan(by_kappa).all() else None,
    }


def preferences(shares: Doubles) -> Doubles:
    """Return AlpacaEval's preference (n,) of shares (n, k): 1 for A, 2 for B, 1.5 for a tie, or between them."""
    values: Doubles = shares[:, 0] + 2 * shares[:, 1] + 1.5 * shares[:, 2:].sum(axis=1)
    return values


def evaluator_row(annotations: list[Doubles], votes: Doubles, lengths: Doubles, lists: Mask) -> dict[str, float | None]:
    """Return AlpacaEval's measures of an evaluator: Human agreement, Bias, Variance, and three probabilities.

    `annotations` holds the evaluator's annotations of n records as shares (n, k), nan where there is none; several of
    them are its verdicts in both orders. `votes` (n, k) are people's, `lengths` (n, 2) the answers' in characters and
    `lists` (n, 2) whether they have a list.

    As in `analyze.py` and `metrics/helpers.py` of tatsu-lab/alpaca_eval: agreement is 1 - |difference of preferences|,
    of one annotation with the mode of people's votes. Bias is the disagreement of the mode of the annotations, and
    Variance that of one annotation with another: both need several. AlpacaEval draws one of several modes. This is the
    mean over them, which is what a draw gives on average. The probability of preferring the longer answer is over pairs
    whose lengths differ by more than 30 characters; a tie is no preference.
    """
    stacked = np.stack([preferences(shares) for shares in annotations])
    present = ~np.isnan(stacked)
    from_votes = _distance(np.nan_to_num(stacked, nan=1.5), votes)
    several = present.sum(axis=0) > 1
    bias = variance = None
    if several.any():
        modes = present & _is_mode(stacked)
        bias = float(((modes * from_votes).sum(axis=0) / np.maximum(modes.sum(axis=0), 1))[several].mean())
        pairs = [(one, other) for one in range(len(stacked)) for other in range(one)]
        both = np.stack([present[one] & present[other] for one, other in pairs])
        apart = np.stack([np.abs(stacked[one] - stacked[other]) for one, other in pairs])
        variance = float((np.where(both, apart, 0.0).sum(axis=0)[several] / both.sum(axis=0)[several]).mean())
    longer = np.where(lengths[:, 0] > lengths[:, 1], 1.0, 2.0)
    differs = np.abs(lengths[:, 0] - lengths[:, 1]) > LONGER_BY
    with_list = np.where(lists[:, 0], 1.0, 2.0)
    return {
        "human_agreement": float(1 - from_votes[present].mean()),
        "bias": bias,
        "variance": variance,
        "prefers_longer": _prefers(stacked, longer, present & differs),
        "prefers_lists": _prefers(stacked, with_list, present & (lists[:, 0] != lists[:, 1])),
        "prefers_a": float(2 - stacked[present].mean()),
    }


def _prefers(preference: Doubles, side: Doubles, rows: Mask) -> float | None:
    """Return the share of decided preferences (a, n) for a side (n,), 1 or 2, among some of them."""
    decided = rows & (preference != 1.5)
    if not decided.any():
        return None
    return float((np.abs(preference - side) < 0.5)[decided].mean())


def _distance(values: Doubles, votes: Doubles) -> Doubles:
    """Return the mean distance (a, n) of preferences (a, n) from the modes of people's votes (n, k)."""
    counts = np.concatenate([votes[:, :2], votes[:, 2:].sum(axis=1, keepdims=True)], axis=1)
    modes = counts >= counts.max(axis=1, keepdims=True) - 1e-12
    distances = np.abs(values[:, :, None] - np.array([1.0, 2.0, 1.5]))
    mean: Doubles = (distances * modes).sum(axis=2) / modes.sum(axis=1)
    return mean


def _is_mode(values: Doubles) -> Mask:
    """Return which annotations (a, n) are among the most frequent ones of their record; nan is none."""
    equal = (values[:, None] == values[None]).sum(axis=1)
    modes: Mask = equal == equal.max(axis=0)
    return modes


def _number(value: Any) -> float | None:  # noqa: ANN401 - a number or an array of one
    return None if np.isnan(value) else float(value)
