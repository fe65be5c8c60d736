"""Compare the biases of predictions and voters: to the first, the longer, or the more decorated answer."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import ENGINES, SECTIONS
from featurize.arena_style import STYLE_FEATURES
from metrics.bradley_terry import fit_bradley_terry
from metrics.calibration_curves import equal_count_bins
from metrics.differences import normalized_difference
from metrics.intervals import bootstrap_means, bootstrap_part_means, percentile_interval
from report.section import ReportSection
from report.sections.bias.figures import length_figure, style_figure
from votes.schema import LABELS
from votes.swap import win_shares

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.settings.schema import Settings
    from report.context import ReportContext
    from report.section import Metrics

LENGTH_BINS = 8
# The advantage of the first answer over an equal second answer: a home advantage (Davidson and Beaver 1977).
POSITION_FEATURE = "position"


@SECTIONS.register
class BiasSection(ReportSection):
    """Biases of predictions and votes."""

    name, title, order = "bias", "Bias", 40
    summary = "Bias by length, style and position, of votes and of predictions."
    figures = MappingProxyType({"length": length_figure, "style": style_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return biases by position, length and style."""
        votes = context.votes.shares
        return {
            "bias": {
                "position": _position(context, votes),
                "length": _length(context, votes),
                "style": _style(context, votes),
            }
        }


def averages_both_orders(settings: Settings) -> dict[str, bool]:
    """Return by model whether it predicts the mean over both orders, so that exchanging answers exchanges P(A), P(B).

    Fine-tuned encoders always do, and judges' models.
    """
    averages = {
        booster.name: booster.swaps or ENGINES.get(booster.engine).swap_consistent for booster in settings.boosters
    }
    averages |= {encoder.name: True for encoder in settings.finetune.encoders}
    averages |= dict.fromkeys(settings.judge_models, True)
    for llm in settings.llms:  # the cheaper model of a cascade, which predicts some of its records, comes earlier
        averages[llm.name] = llm.swap == "both" and (llm.cascade is None or averages[llm.cascade.model])
    return averages


def _position(context: ReportContext, votes: Probabilities) -> dict[str, Any]:
    """Return the shares of records won by A, B and neither: of the votes, and as each model expects them.

    `lean` is the expected share of half-wins of A less the actual share. Its interval is above 0 for a model that
    favors A more than voters do.
    """
    averages = averages_both_orders(context.settings)
    averages["blend"] = all(averages[model] for model in context.settings.blended)
    predicted = {**context.predictions, "blend": context.blend}
    actual = win_shares(votes)
    lean = np.stack([win_shares(values) - actual for values in predicted.values()], axis=1)
    # A model of some folds predicts only their records, and is compared with the votes on those records.
    present = ~np.isnan(lean)
    means = bootstrap_means(
        np.concatenate([np.where(present, lean, 0.0), present, actual[:, None]], axis=1),
        context.votes.groups,
        context.votes.weights,
        seed=context.seed,
    )
    leans = means[:, : len(predicted)] / means[:, len(predicted) : -1]
    exchanges = {name: context.position_effect(name) for name in context.settings.models}
    by_model = {}
    for n, (name, values) in enumerate(predicted.items()):
        rows = present[:, n]
        mean = context.votes.take(rows).mean
        by_model[name] = {
            **dict(zip(LABELS, mean(values[rows]).tolist(), strict=False)),
            "half_wins": float(mean(win_shares(values[rows]))),
            "lean": float(mean(lean[rows, n])),
            "lean_ci95": list(percentile_interval(leans[:, n])),
            "both_orders": averages[name],
            "exchange": exchanges.get(name),
        }
    shares = dict(zip(LABELS, context.votes.mean(votes).tolist(), strict=False))
    won_by_a = {
        "half_wins": float(context.votes.mean(actual)),
        "half_wins_ci95": list(percentile_interval(means[:, -1])),
    }
    return {"votes": {**shares, **won_by_a}, "predicted": by_model}


def _length(context: ReportContext, votes: Probabilities) -> list[dict[str, Any]]:
    """Return the share of half-wins of A, actual and predicted, by normalized length difference in equal bins."""
    columns = context.train_columns
    a, b = (columns[f"chars_{side}"].to_numpy().astype(np.float64) for side in "ab")
    difference = normalized_difference(a, b)
    inside = np.eye(LENGTH_BINS, dtype=bool)[equal_count_bins(difference, LENGTH_BINS)]
    inside = inside[:, inside.any(axis=0)]
    actual, predicted = win_shares(votes), win_shares(context.blend)
    means = bootstrap_part_means(actual, inside, context.votes.groups, context.votes.weights, seed=context.seed)
    return [
        {
            "difference": float(part.mean(difference[rows])),
            "count": len(part.first),
            "actual": float(part.mean(actual[rows])),
            "ci95": list(percentile_interval(means[:, n])),
            "predicted": float(part.mean(predicted[rows])),
        }
        for n, rows in enumerate(inside.T)
        for part in [context.votes.take(rows)]
    ]


def _style(context: ReportContext, votes: Probabilities) -> list[dict[str, Any]]:
    """Return coefficients of Bradley-Terry fits to votes and blend, in log-odds of a win per standard deviation.

    A feature that no answer of these records has is left out.
    """
    columns = context.train_columns
    differences = {}
    for name in STYLE_FEATURES:
        difference = normalized_difference(columns[f"{name}_a"].to_numpy(), columns[f"{name}_b"].to_numpy())
        if difference.any():
            # Deviation from 0, not from the mean: exchanging the answers turns every sign. The position takes the rest.
            differences[name] = difference / np.sqrt((difference**2).mean())
    design = np.stack([*differences.values(), np.ones(len(votes))], axis=1)
    groups, weights = context.votes.groups, context.votes.weights
    fits = {
        "votes": fit_bradley_terry(design, win_shares(votes), groups, weights),
        "blend": fit_bradley_terry(design, win_shares(context.blend), groups, weights),
    }
    return [
        {
            "feature": name,
            **{source: float(fit.coefficients[n]) for source, fit in fits.items()},
            **{f"{source}_ci95": list(fit.interval(n)) for source, fit in fits.items()},
        }
        for n, name in enumerate([*differences, POSITION_FEATURE])
    ]
