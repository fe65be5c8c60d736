"""Compare scores and costs of baselines, models and blends, and the gains of sources of votes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from core.stage import read_manifest
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import record_log_loss
from report.scores import score_predictions
from report.section import ReportSection
from report.sections.models.figures import loss_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from core.arrays import Probabilities
    from core.run import Run
    from report.context import ReportContext
    from report.section import Metrics
    from votes.arrays import Votes

COST_UNITS = ("core_seconds", "gpu_seconds")


@SECTIONS.register
class ModelsSection(ReportSection):
    """Models side by side."""

    name, title, order = "models", "Models", 10
    summary = "Out-of-fold scores and cost of every baseline, model and blend; what each source of votes is worth."
    figures = MappingProxyType({"losses": loss_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return scores and costs by model, comparisons of incomplete models, and the study of sources."""
        prior = context.baselines["class prior"]
        others = {"class prior": prior, **context.predictions, "blend": context.blend}
        same_rows = {name: compare_on_rows(name, others, context.votes, context.seed) for name in context.incomplete}
        models = dict(context.scores["models"])
        for name, comparison in same_rows.items():
            folds = {"folds": context.settings.partial[name]} if name in context.settings.partial else {}
            models[name] = {**comparison["beside"][name], **folds, "records": comparison["rows"]}
        for name, cost in model_costs(context.run).items():
            models[name] = {**models[name], "cost": cost}
        return {
            "baselines": context.scores["baselines"],
            "models": models,
            "same_rows": same_rows,
            "sources": _source_gains(context.run),
        }


def compare_on_rows(model: str, predicted: Mapping[str, Probabilities], votes: Votes, seed: int) -> dict[str, Any]:
    """Score every set of predictions on the rows that `model` predicts, and its loss less the model's loss.

    `predicted` maps names to probabilities (m, k) with nan rows. Sets that lack any of the model's rows are left out.
    A difference above 0 means that the model is better.
    """
    rows = ~np.isnan(predicted[model][:, 0])
    own_votes = votes.take(rows)
    complete = {name: values[rows] for name, values in predicted.items() if not np.isnan(values[rows]).any()}
    losses = {name: record_log_loss(values, own_votes.labels) for name, values in complete.items()}
    columns = [*losses.values(), *(loss - losses[model] for loss in losses.values())]
    means = bootstrap_means(np.stack(columns, axis=1), own_votes.groups, own_votes.weights, seed=seed)
    compared = {
        name: {
            **score_predictions(values, own_votes),
            "ci95": list(percentile_interval(means[:, n])),
            "difference": float(own_votes.mean(losses[name] - losses[model])),
            "difference_ci95": list(percentile_interval(means[:, len(complete) + n])),
        }
        for n, (name, values) in enumerate(complete.items())
    }
    return {"rows": len(own_votes.first), "beside": compared}


def model_costs(run: Run) -> dict[str, dict[str, float]]:
    """Return by model the seconds of its training and scoring, times the CPUs or GPUs that were held.

    Manifests give the seconds of folds and shards, and for language models the start of their engines. For resumed
    stages, only the time after the restart is counted. Features, which models share, and searches are not included.
    """
    settings = run.settings
    folders = {name: [f"predictions/{name}"] for name in settings.models}
    for encoder in settings.finetune.encoders:
        folders[encoder.name].append(f"models/{encoder.name}")
    for llm in settings.llms:
        if llm.finetuned is not None:
            folders[llm.name].append(f"models/{llm.finetuned}")
    costs = {}
    for model, names in folders.items():
        metrics = [(read_manifest(run.folder / name) or {"metrics": {}})["metrics"] for name in names]
        costs[model] = {unit: sum(float(stage.get(unit, 0.0)) for stage in metrics) for unit in COST_UNITS}
    return costs


def _source_gains(run: Run) -> dict[str, Any]:
    """Return the gain of each other source of votes by name; empty without a study of sources."""
    used = any(source.weight > 0 for source in run.settings.data.others)
    manifest = read_manifest(run.folder / "sources") if used else None
    return {} if manifest is None else dict(manifest["metrics"]["sources"])
