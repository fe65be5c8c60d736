"""Whether predictions lean as voters do: towards the first answer, the longer one, or the more decorated one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.registry import ENGINES
from core.stage import read_manifest
from metrics.bradley_terry import fit, normalised_difference
from metrics.calibration_curves import equal_count_bins
from metrics.intervals import bootstrap_means, bootstrap_parts, interval
from report.columns import STYLE
from votes.schema import LABELS
from votes.swap import half_wins

if TYPE_CHECKING:
    from core.run import Run

Floats = npt.NDArray[np.float64]

LENGTH_BINS = 8
# What the first answer has over an equal second one; a home advantage (Davidson and Beaver 1977).
POSITION = "position"


def bias(
    run: Run,
    columns: pa.Table,
    predicted: Mapping[str, Floats],
    labels: npt.NDArray[np.int8],
    groups: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Biases by position, length and style; `predicted` maps models, and "blend", to probabilities (n, 3)."""
    blend = predicted["blend"]
    votes = np.eye(3)[labels]
    return {
        "position": _position(run, predicted, votes, groups),
        "length": _length(columns, blend, votes, groups, run.settings.seed),
        "style": _style(columns, blend, votes, groups),
    }


def averages_both_orders(run: Run) -> dict[str, bool]:
    """By model: whether it predicts the mean over both orders, so that exchanging answers exchanges P(A) and P(B)."""
    # Fine-tuned encoders always predict both orders.
    boosters = {
        booster.name: booster.swaps or ENGINES.get(booster.engine).swap_consistent for booster in run.settings.boosters
    }
    encoders = {encoder.name: True for encoder in run.settings.finetune.encoders}
    found = {**boosters, **encoders}
    for llm in run.settings.llms:  # a cascade's cheaper model, which predicts some of its records, stands before it
        found[llm.name] = llm.swap == "both" and (llm.cascade is None or found[llm.cascade.model])
    return found


def _position(
    run: Run, predicted: Mapping[str, Floats], votes: Floats, groups: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Shares of records won by A, B and neither: of the votes, and as each model expects them.

    The difference of the expected and the actual share of half-wins has an interval; a model that leans to A beyond
    what voters do has it above 0.
    """
    both = averages_both_orders(run)
    both["blend"] = all(both[model] for model in run.settings.blended)
    actual = half_wins(votes)
    lean = np.stack([half_wins(values) - actual for values in predicted.values()], axis=1)
    # A model of some folds predicts only their records, and is set against those records' votes.
    there = ~np.isnan(lean)
    sums = bootstrap_means(
        np.concatenate([np.where(there, lean, 0.0), there, actual[:, None]], axis=1), groups, seed=run.settings.seed
    )
    leans = sums[:, : len(predicted)] / sums[:, len(predicted) : -1]
    exchanges = {name: _exchange(run, name) for name in run.settings.models}
    found = {}
    for n, (name, values) in enumerate(predicted.items()):
        rows = there[:, n]
        found[name] = {
            **dict(zip(LABELS, values[rows].mean(axis=0).tolist(), strict=True)),
            "half_wins": float(half_wins(values[rows]).mean()),
            "lean": float(lean[rows, n].mean()),
            "lean_ci95": list(interval(leans[:, n])),
            "both_orders": both[name],
            "exchange": exchanges.get(name),
        }
    shares = dict(zip(LABELS, votes.mean(axis=0).tolist(), strict=True))
    of_votes = {"half_wins": float(actual.mean()), "half_wins_ci95": list(interval(sums[:, -1]))}
    return {"votes": {**shares, **of_votes}, "predicted": found}


def _exchange(run: Run, model: str) -> dict[str, float] | None:
    """What exchanging the answers does to a model before it averages; None if it was not asked. See position_effect."""
    manifest = read_manifest(run.folder / f"predictions/{model}") or {"metrics": {}}
    found: dict[str, float] | None = manifest["metrics"].get("position")
    return found


def _length(
    columns: pa.Table, blend: Floats, votes: Floats, groups: npt.NDArray[np.int64], seed: int
) -> list[dict[str, Any]]:
    """The share of half-wins of A, actual and predicted, in bins of equal counts by normalised length difference."""
    a, b = (columns[f"chars_{side}"].to_numpy().astype(np.float64) for side in "ab")
    difference = normalised_difference(a, b)
    inside = np.eye(LENGTH_BINS, dtype=bool)[equal_count_bins(difference, LENGTH_BINS)]
    inside = inside[:, inside.any(axis=0)]
    actual, predicted = half_wins(votes), half_wins(blend)
    means = bootstrap_parts(actual, inside, groups, seed=seed)
    return [
        {
            "difference": float(difference[rows].mean()),
            "count": int(rows.sum()),
            "actual": float(actual[rows].mean()),
            "ci95": list(interval(means[:, n])),
            "predicted": float(predicted[rows].mean()),
        }
        for n, rows in enumerate(inside.T)
    ]


def _style(columns: pa.Table, blend: Floats, votes: Floats, groups: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Coefficients of Bradley-Terry fits to the votes and to the blend, in log-odds of a win for a standard deviation.

    A feature that no answer of these records has is left out.
    """
    differences = {}
    for name in STYLE:
        difference = normalised_difference(columns[f"{name}_a"].to_numpy(), columns[f"{name}_b"].to_numpy())
        if difference.any():
            # About 0 and not the mean, so that exchanging the answers turns every sign; the rest is the position's.
            differences[name] = difference / np.sqrt((difference**2).mean())
    design = np.stack([*differences.values(), np.ones(len(votes))], axis=1)
    fits = {"votes": fit(design, half_wins(votes), groups), "blend": fit(design, half_wins(blend), groups)}
    return [
        {
            "feature": name,
            **{of: float(each.coefficients[n]) for of, each in fits.items()},
            **{f"{of}_ci95": list(each.interval(n)) for of, each in fits.items()},
        }
        for n, name in enumerate([*differences, POSITION])
    ]
