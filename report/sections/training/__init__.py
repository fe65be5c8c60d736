"""The training curves of fine-tuned models."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from report.section import ReportSection
from report.sections.training.figures import curve_figure
from train.finetune.checkpoints import HISTORY_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from report.context import ReportContext
    from report.section import Metrics

MAX_CURVE_POINTS = 120  # of a curve; each is the mean of several steps


@SECTIONS.register
class TrainingSection(ReportSection):
    """Training curves of fine-tuned models."""

    name, title, order = "training", "Training", 80
    summary = "Training loss and held-out log loss of each fine-tuned model by step."
    figures = MappingProxyType({"curve": curve_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return by model and fold the thinned loss of training steps, and the held-out log loss after each epoch."""
        curves: dict[str, dict[str, dict[str, Any]]] = {}
        settings = context.settings
        for model in settings.finetune.models:
            for fold in range(settings.data.folds) if model.folds is None else sorted(model.folds):
                folder = context.folder / f"models/{model.name}/fold-{fold}"
                if folder.exists(HISTORY_FILE):
                    curves.setdefault(model.name, {})[str(fold)] = _curve(folder.read_json(HISTORY_FILE))
        return {"curves": curves}


def _curve(history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    parts = np.array_split(np.arange(len(history)), min(MAX_CURVE_POINTS, len(history)))
    epochs = [n for n, point in enumerate(history) if "held_out_log_loss" in point]
    return {
        "steps": len(history),
        "loss": [[float(part.mean()), float(np.mean([history[n]["loss"] for n in part]))] for part in parts],
        "held_out": [[n, float(history[n]["held_out_log_loss"])] for n in epochs],
        "stages": [int(history[n]["stage"]) + 1 for n in epochs],
    }
