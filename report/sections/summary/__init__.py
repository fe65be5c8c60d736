"""Render the head of the page: the blend's score, its gains, and warnings about all scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import ENGINES, SECTIONS
from metrics.scores import log_loss
from report.scores import blend_gains
from report.section import ReportSection
from votes.schema import LABELS

if TYPE_CHECKING:
    from core.settings.schema import Settings
    from report.context import ReportContext
    from report.section import Metrics


@SECTIONS.register
class SummarySection(ReportSection):
    """The head of the page."""

    name, order = "summary", 0
    summary = "The score of the submitted blend, and its gains over baselines and over the best single model."

    def compute(self, context: ReportContext) -> Metrics:
        """Return the number of records and votes, and the gains of the blend."""
        votes = context.votes
        counts = np.bincount(votes.labels, votes.weights, votes.classes).tolist()
        return {
            "rows": context.records.rows("train"),
            "votes": _whole(round(float(votes.weights.sum()), 6)),
            "labels": {label: _whole(count) for label, count in zip(LABELS, counts, strict=False)},
            "summary": _gains(context),
        }

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return the leaks, and the models that may have been trained on the scored votes."""
        return {"leaks": list_leaks(context.settings), "external_checkpoints": context.settings.possibly_contaminated}


def _whole(count: float) -> float | int:
    """Return a count as an integer where it is one: soft votes are counted by shares."""
    return int(count) if count == int(count) else count


def _gains(context: ReportContext) -> dict[str, Any]:
    """Return the gains of the blend over class prior, length only, and the best single model of the blend.

    A record that a model does not predict counts as the class prior. So a few records in quarantine do not exclude
    the best model from the comparison.
    """
    prior = context.baselines["class prior"]
    blended = {name: context.predictions[name] for name in context.settings.blended}
    filled = {name: np.where(np.isnan(values), prior, values) for name, values in blended.items()}
    plain = {name: context.baselines[name] for name in ("class prior", "length only")}
    gains = blend_gains({**plain, **filled}, context.blend, context.votes, context.seed)
    votes = context.votes
    best = min(filled, key=lambda name: log_loss(filled[name], votes.labels, votes.weights))
    return {
        "over_class_prior": gains["class prior"],
        "over_length_only": gains["length only"],
        "best_model": best,
        "best_model_lacks": int(np.isnan(blended[best][votes.first, 0]).sum()),
        "over_best_model": gains[best],
    }


def list_leaks(settings: Settings) -> list[tuple[str, list[str]]]:
    """List the choices that used held-out votes, such as early stopping or a teacher, with their models."""
    stopped = [
        booster.name
        for booster in settings.boosters
        if booster.early_stopping_rounds is not None and ENGINES.get(booster.engine).has_rounds
    ]
    searched = [search.booster for search in settings.tune]
    taught = [model.name for model in settings.finetune.models if model.teacher is not None]
    choices = [("early stopping of", stopped), ("parameter search for", searched), ("teacher of", taught)]
    if settings.data.voters.model == "reliability":
        trained = [booster.name for booster in settings.boosters]
        trained += [model.name for model in settings.finetune.models]
        choices.append(("weights of voters for", trained))
    return [(choice, models) for choice, models in choices if models]
