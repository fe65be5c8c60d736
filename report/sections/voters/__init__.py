"""Compare voters with each other, and the blend with what people know of each other: the human ceiling."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from core.registry import SECTIONS
from metrics.calibration_curves import wilson_interval
from metrics.intervals import bootstrap_means, percentile_interval
from metrics.scores import record_log_loss
from metrics.voters import SharedVotes
from report.section import ReportSection
from report.sections.voters.figures import ceiling_figure

if TYPE_CHECKING:
    from core.arrays import Doubles, Ints, Mask
    from report.context import ReportContext
    from report.section import Metrics

MIN_SHARED_RECORDS: Final = 30  # records with three votes or more, without which the section is left out
_MAX_VOTERS: Final = 50  # rows of the table, those with most votes


@SECTIONS.register
class VotersSection(ReportSection):
    """Agreement of voters, and the blend's log loss compared with the human ceiling."""

    name, title, order = "voters", "Voters", 45
    summary = "How well people's votes predict each other's, compared with the blend; each voter's ties and agreement."
    figures = MappingProxyType({"ceiling": ceiling_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return the human ceiling and the voters, if enough records have several votes."""
        ballots = context.records.ballots()
        if ballots is not None:
            ballots = ballots.filter(pa.array(_is_for_one_outcome(ballots)))
        if ballots is None or (np.bincount(ballots["record"].to_numpy()) > 2).sum() < MIN_SHARED_RECORDS:
            return {}
        return {"voters": compare_voters(context, ballots)}

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return whether both bad is an outcome of its own, which the column of ties counts, too."""
        return {"has_both_bad": context.votes.classes > 3}


def _is_for_one_outcome(ballots: pa.Table) -> Mask:
    """Return which votes have one outcome with the largest share: soft votes may have two."""
    shares = np.stack(ballots["votes"].to_pylist())
    is_one: Mask = (shares > shares.max(axis=1, keepdims=True) - 1e-9).sum(axis=1) == 1
    return is_one


def compare_voters(context: ReportContext, ballots: pa.Table) -> dict[str, Any]:
    """Return the ceiling and the voters' numbers. `ballots` has a row for each vote; see Records.ballots."""
    votes = context.votes
    record = ballots["record"].to_numpy()
    first = votes.first
    labels = np.stack(ballots["votes"].to_pylist()).argmax(axis=1).astype(np.int8)
    voters = ballots["voter"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    shared, is_shared = SharedVotes.of(
        record, labels, votes.folds[first][record], votes.groups[first][record], voters, votes.classes
    )
    blend, prior = (values[first][shared.records] for values in (context.blend, context.baselines["class prior"]))
    measured = {
        "one_person": shared.loss_from_one(),
        "all_others": shared.loss_from_all(),
        "blend": record_log_loss(blend, shared.labels),
        "class_prior": record_log_loss(prior, shared.labels),
        "agreement": shared.agreement,
        "blend_agreement": (blend.argmax(axis=1) == shared.labels).astype(np.float64),
        "chance": shared.chance,
    }
    samples = bootstrap_means(np.stack(list(measured.values()), axis=1), shared.groups, seed=context.seed)
    names = ballots["voter"].filter(is_shared).combine_chunks()
    exchanged: Mask = ballots["exchanged"].to_numpy()[is_shared]
    people, against = _people(names, shared, exchanged, ballots["weight"].to_numpy()[is_shared])
    return {
        "votes": len(labels),
        "shared_votes": len(shared.labels),
        "records": len(np.unique(shared.records)),
        "prompts": len(np.unique(shared.groups)),
        "voters": len(names.drop_null().unique()),
        "ceiling": {
            name: {"value": float(values.mean()), "ci95": list(percentile_interval(samples[:, n]))}
            for n, (name, values) in enumerate(measured.items())
        },
        "people": people,
        "against_all": against,
    }


def _people(
    names: pa.Array, shared: SharedVotes, exchanged: Mask, weights: Doubles
) -> tuple[list[dict[str, Any]], int]:
    """Return the numbers of the voters with most votes, and how many of all agree less than by chance.

    `exchanged` (m,) says which votes were given on the answers in the other order.
    """
    encoded = names.dictionary_encode()
    number: Ints = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    agreement, chance = shared.agreement, shared.chance
    people = []
    for n, name in enumerate(encoded.dictionary.to_pylist()):
        mine: Mask = number == n
        decided = mine & (shared.labels < 2)
        count = int(mine.sum())
        low, high = wilson_interval(float(agreement[mine].sum()), count)
        people.append(
            {
                "voter": name,
                "votes": count,
                "ties": float((shared.labels[mine] >= 2).mean()),
                "first": float(((shared.labels == 0) != exchanged)[decided].mean()) if decided.any() else None,
                "agreement": float(agreement[mine].mean()),
                "agreement_ci95": [low, high],
                "chance": float(chance[mine].mean()),
                "against_all": bool(high < chance[mine].mean()),
                "like_chance": bool(low <= chance[mine].mean() <= high),
                "weight": float(weights[mine].mean()),
            }
        )
    people.sort(key=lambda person: (-person["votes"], person["voter"]))
    against = [person for person in people if person["against_all"]]
    shown = people[:_MAX_VOTERS]
    return [*shown, *(person for person in against if person not in shown)], len(against)
