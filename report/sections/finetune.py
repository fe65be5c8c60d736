"""What the report says of fine-tuned models: their training curves, and how those of some folds only compare there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from metrics.intervals import bootstrap_means, interval
from metrics.scores import record_log_loss
from report.scores import scores
from train.finetune.checkpoints import HISTORY
from train.finetune.stages import folds_of

if TYPE_CHECKING:
    from core.run import Run

POINTS = 120  # of a curve, each the mean of the steps it stands for

Floats = npt.NDArray[np.float64]


def curves(run: Run) -> dict[str, dict[str, dict[str, Any]]]:
    """By model and fold: the loss of training steps, thinned, and the held-out log loss after each epoch."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for model in run.settings.finetune.models:
        for fold in folds_of(run, model):
            folder = run.folder / f"models/{model.name}/fold-{fold}"
            if folder.exists(HISTORY):
                found.setdefault(model.name, {})[str(fold)] = _curve(folder.read_json(HISTORY))
    return found


def _curve(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    parts = np.array_split(np.arange(len(history)), min(POINTS, len(history)))
    epochs = [n for n, point in enumerate(history) if "held_out_log_loss" in point]
    return {
        "steps": len(history),
        "loss": [[float(part.mean()), float(np.mean([history[n]["loss"] for n in part]))] for part in parts],
        "held_out": [[n, float(history[n]["held_out_log_loss"])] for n in epochs],
        "stages": [int(history[n]["stage"]) + 1 for n in epochs],
    }


def on_the_same_rows(
    model: str, predicted: Mapping[str, Floats], labels: npt.NDArray[np.int8], groups: npt.NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Scores of every prediction set on the rows that `model` predicts, and by how much its loss exceeds the model's.

    `predicted` maps names to probabilities (n, 3); rows that a set leaves out are nan. Sets that miss any of the
    model's rows are left out. A positive difference means that the model is the better one.
    """
    rows = ~np.isnan(predicted[model][:, 0])
    there = {name: values[rows] for name, values in predicted.items() if not np.isnan(values[rows]).any()}
    losses = {name: record_log_loss(values, labels[rows]) for name, values in there.items()}
    columns = [*losses.values(), *(loss - losses[model] for loss in losses.values())]
    means = bootstrap_means(np.stack(columns, axis=1), groups[rows], seed=seed)
    beside = {}
    for n, (name, values) in enumerate(there.items()):
        beside[name] = {
            **scores(values, labels[rows]),
            "ci95": list(interval(means[:, n])),
            "difference": float((losses[name] - losses[model]).mean()),
            "difference_ci95": list(interval(means[:, len(there) + n])),
        }
    return {"rows": int(rows.sum()), "beside": beside}
