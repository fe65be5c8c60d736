"""Compare judges with people: agreement, calibration, biases, price, and where a judge may stand in for a person."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from core.registry import SECTIONS
from metrics.agreement import evaluator_row, label_agreement, score_agreement
from metrics.intervals import bootstrap_means, bootstrap_part_means, percentile_interval
from metrics.scores import record_log_loss
from metrics.voters import SharedVotes
from report.section import ReportSection
from report.sections.judges.figures import agreement_figure
from report.sections.judges.raters import gather_raters, of_rows
from report.slices import slices_of_records

if TYPE_CHECKING:
    from core.arrays import Doubles, Mask
    from report.context import ReportContext
    from report.section import Metrics
    from report.sections.judges.raters import Rater
    from votes.arrays import Votes

MIN_RATED: Final = 20  # with verdicts and votes, without which a judge is left out
_ALL: Final = ("all records", "all")


@SECTIONS.register
class JudgesSection(ReportSection):
    """Judges beside people."""

    name, title, order = "judges", "Judges", 47
    summary = "How far judges, models and the blend agree with people, what biases they have, and where a judge may do."
    figures = MappingProxyType({"agreement": agreement_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return the numbers of each rater, and by slice how judges compare with one more person."""
        raters = [rater for rater in gather_raters(context) if _records(rater) >= MIN_RATED]
        if not any(rater.kind != "blend" for rater in raters):
            return {}
        return {
            "judges": {rater.name: _score(rater, context) for rater in raters},
            "stand_in": _stand_in(raters, context),
        }

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return whether ties are an outcome, and both bad one of its own."""
        return {"has_ties": context.votes.classes > 2}


def _records(rater: Rater) -> int:
    return int((~np.isnan(rater.verdicts[:, 0])).sum())


def _score(rater: Rater, context: ReportContext) -> dict[str, Any]:
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


def _stand_in(raters: list[Rater], context: ReportContext) -> list[dict[str, Any]]:
    """Return by slice how much more judges agree with a vote than one other person does; empty without such votes.

    The intervals of a judge hold for all slices together (Bonferroni).
    """
    ballots = context.records.ballots()
    if ballots is None:
        return []
    shares = np.stack(ballots["votes"].to_pylist())
    ballots = ballots.filter(pa.array((shares > shares.max(axis=1, keepdims=True) - 1e-9).sum(axis=1) == 1))
    record = ballots["record"].to_numpy()
    labels = np.stack(ballots["votes"].to_pylist()).argmax(axis=1).astype(np.int8)
    voters = ballots["voter"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    votes, first = context.votes, context.votes.first
    shared, _ = SharedVotes.of(
        record, labels, votes.folds[first][record], votes.groups[first][record], voters, votes.classes
    )
    if len(np.unique(shared.records)) < MIN_RATED:
        return []
    masks = {_ALL: np.ones(len(votes), bool), **slices_of_records(context.train_columns, context.rows, votes)}
    parts = np.stack([mask[first][shared.records] for mask in masks.values()], axis=1)
    rows = []
    for rater in raters:
        verdicts = rater.verdicts[shared.records]
        rated = ~np.isnan(verdicts[:, 0])
        if not rated.any():
            continue
        more = label_agreement(verdicts[rated], shared.labels[rated]) - shared.agreement[rated]
        own_parts = parts[rated]
        samples = bootstrap_part_means(more, own_parts, shared.groups[rated], seed=context.seed)
        level = 1 - 0.05 / len(masks)
        for n, (by, name) in enumerate(masks):
            inside = own_parts[:, n]
            if len(np.unique(shared.groups[rated][inside])) < MIN_RATED and (by, name) != _ALL:
                continue
            low, high = percentile_interval(samples[:, n], level)
            rows.append(
                {
                    "judge": rater.name,
                    "by": by,
                    "slice": name,
                    "votes": int(inside.sum()),
                    "difference": float(more[inside].mean()),
                    "difference_ci95": [low, high],
                    "verdict": "at least as good" if low >= 0 else "worse" if high < 0 else "not told apart",
                }
            )
    return rows
