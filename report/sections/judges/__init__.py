"""Compare judges with people: agreement, calibration, biases, price, and where a judge may stand in for a person."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import SECTIONS
from metrics.agreement import evaluator_row, label_agreement, score_agreement
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import record_log_loss
from report.section import ReportSection
from report.sections.judges.figures import agreement_figure
from report.sections.judges.raters import MIN_RATED, gather_raters, of_rows
from report.sections.judges.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.arrays import Doubles, Mask
    from report.context import ReportContext
    from report.section import Metrics
    from report.sections.judges.raters import Rater
    from votes.arrays import Votes


@SECTIONS.register
class JudgesSection(ReportSection):
    """Agreement of judges with people, and the judges' biases and prices."""

    name, title, order = "judges", "Judges", 47
    summary = "How far judges, models and the blend agree with people, what biases they have, and where a judge may do."
    figures = MappingProxyType({"agreement": agreement_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return the numbers of each rater, and by slice how judges compare with one more person."""
        raters = [rater for rater in gather_raters(context) if _records(rater) >= MIN_RATED]
        if not any(rater.kind != "blend" for rater in raters):
            return {}
        best = _best_judge(raters, context)
        scores = {"judges": {rater.name: _score(rater, best, context) for rater in raters}}
        rows = stand_in(raters, context)
        return {**scores, "stand_in": rows} if rows else scores

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return whether ties are an outcome."""
        return {"has_ties": context.votes.classes > 2}


def _records(rater: Rater) -> int:
    return int((~np.isnan(rater.verdicts[:, 0])).sum())


def _best_judge(raters: Sequence[Rater], context: ReportContext) -> Rater:
    """Return the judge that agrees with most votes; the best of all if there is no judge."""
    votes = context.votes

    def agreement(rater: Rater) -> float:
        verdicts = of_rows(rater, votes.records).verdicts
        rated = ~np.isnan(verdicts[:, 0])
        return float(votes.take(rated).mean(label_agreement(verdicts[rated], votes.labels[rated])))

    return max([rater for rater in raters if rater.kind == "judge"] or raters, key=agreement)


def _less_than_best(rater: Rater, best: Rater, context: ReportContext) -> dict[str, Any] | None:
    """Return the agreement of a rater less that of the best judge, on votes that both rate, with its interval."""
    votes = context.votes
    verdicts, others = (of_rows(one, votes.records).verdicts for one in (rater, best))
    both = ~np.isnan(verdicts[:, 0]) & ~np.isnan(others[:, 0])
    if rater is best or not both.any():
        return None
    own = votes.take(both)
    less = label_agreement(verdicts[both], own.labels) - label_agreement(others[both], own.labels)
    samples = bootstrap_means(less[:, None], own.groups, own.weights, seed=context.seed)
    return {"value": float(own.mean(less)), "ci95": list(percentile_interval(samples[:, 0]))}


def _score(rater: Rater, best: Rater, context: ReportContext) -> dict[str, Any]:
    """Return all numbers of a rater on the records that it rates."""
    votes = context.votes
    spread = of_rows(rater, votes.records)
    verdicts = spread.verdicts
    rated = ~np.isnan(verdicts[:, 0])
    own, verdicts = votes.take(rated), verdicts[rated]
    position = rater.position
    return {
        "kind": rater.kind,
        "records": len(own.first),
        **score_agreement(verdicts, own, context.seed),
        "less_than_best_judge": _less_than_best(rater, best, context),
        "log_loss": _calibrated_loss(spread.probabilities, votes, context.seed),
        "tie_rate": float(own.mean(verdicts[:, 2:].sum(axis=1))) if votes.classes > 2 else None,
        "people_tie_rate": float(own.mean(own.shares[:, 2:].sum(axis=1))) if votes.classes > 2 else None,
        "position": position,
        "where_people_agree": _agreement_by_unanimity(verdicts, own, context, rated),
        "cost_per_1000": rater.cost_per_1000,
        "seconds": rater.seconds,
        "alpaca_eval": _alpaca_eval(rater, context),
    }


def _calibrated_loss(probabilities: Doubles | None, votes: Votes, seed: int) -> dict[str, Any] | None:
    """Return the out-of-fold log loss on the votes that are predicted, with its interval."""
    if probabilities is None:
        return None
    rows = ~np.isnan(probabilities[:, 0])
    own = votes.take(rows)
    losses = record_log_loss(probabilities[rows], own.labels)
    samples = bootstrap_means(losses[:, None], own.groups, own.weights, seed=seed)
    return {"value": float(own.mean(losses)), "ci95": list(percentile_interval(samples[:, 0]))}


def _agreement_by_unanimity(
    verdicts: Doubles, votes: Votes, context: ReportContext, rated: Mask
) -> dict[str, float | None] | None:
    """Return the agreement on records whose voters are unanimous, and on others; None if no record has two voters."""
    people = context.records.read("train", ["voters"])["voters"].to_numpy()[context.votes.records][rated]
    outcomes = np.bincount(votes.records, minlength=int(votes.records.max()) + 1)[votes.records]
    if not (people > 1).any():
        return None
    agreement = label_agreement(verdicts, votes.labels)
    parts = {"agree": (people > 1) & (outcomes == 1), "differ": (people > 1) & (outcomes > 1)}
    return {name: float(votes.take(rows).mean(agreement[rows])) if rows.any() else None for name, rows in parts.items()}


def _alpaca_eval(rater: Rater, context: ReportContext) -> dict[str, float | None]:
    columns = context.columns["train"]
    lengths = np.stack([columns[f"chars_{side}"].to_numpy() for side in "ab"], axis=1).astype(np.float64)
    lists = np.stack([columns[f"lists_{side}"].to_numpy() > 0 for side in "ab"], axis=1)
    return evaluator_row(list(rater.annotations), context.records.vote_counts(), lengths, lists)
