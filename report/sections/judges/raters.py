"""Gather the verdicts to compare with people: of judges from elsewhere, of our models, and of the blend."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow.compute as pc

from core.settings.schema import PANEL
from votes.comparison import OUTCOMES
from votes.verdicts.joined import open_verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from core.arrays import Doubles, Ints, Probabilities
    from core.settings.judges import JudgeTable
    from report.context import ReportContext
    from votes.verdicts.joined import Verdicts

MIN_RATED: Final = 20  # records with verdicts and votes, without which a judge is left out
_ORDERS: Final = ("ab", "ba", None)
_A, _B, _TIE, _BOTH_BAD = range(len(OUTCOMES))


@dataclass(frozen=True)
class Rater:
    """Who says which answer is better. Shares have a row for each training record, nan where there is no verdict."""

    name: str
    kind: Literal["judge", "model", "blend"]
    annotations: Sequence[Doubles]  # (n, k) each: hard verdicts, in each order that was asked
    probabilities: Probabilities | None  # (n, k) once calibrated, out-of-fold
    cost_per_1000: float | None = None  # dollars
    seconds: float | None = None  # of a verdict
    orders: Sequence[str | None] = (None,)  # in which the annotations were asked
    measured: Mapping[str, float] | None = None  # position effect of a model that averages both orders

    @property
    def verdicts(self) -> Doubles:
        """Return the mean (n, k) of its annotations: a verdict that flips with the order is half of each."""
        stacked = np.stack(self.annotations)
        present = ~np.isnan(stacked)
        counts = present.sum(axis=0)
        sums = np.where(present, stacked, 0.0).sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    @property
    def position(self) -> Mapping[str, float] | None:
        """Return what the order does: share of pairs whose verdict flips, and of wins of the answer in first place."""
        by_order = dict(zip(self.orders, self.annotations, strict=True))
        if "ab" not in by_order or "ba" not in by_order:
            return self.measured
        ab, ba = by_order["ab"], by_order["ba"]
        both = ~np.isnan(ab[:, 0]) & ~np.isnan(ba[:, 0])
        if not both.any():
            return None
        ab, ba = ab[both], ba[both]
        first = np.concatenate([_half_wins(ab), 1 - _half_wins(ba)])
        return {
            "records": float(both.sum()),
            "flip_rate": float((np.abs(ab - ba).sum(axis=1) > 0).mean()),
            "first_share": float(first.mean()),
        }


def gather_raters(context: ReportContext) -> list[Rater]:
    """Return judges, models and the blend of a run, in this order; empty if no judge is among them."""
    verdicts = open_verdicts(context.run, context.records)
    asked = [llm.name for llm in context.settings.llms if llm.mode != "classify"]
    if verdicts is None and not asked:
        return []
    judges = {} if verdicts is None else verdicts.judges
    first = context.votes.first
    by_model = {name: values[first] for name, values in context.predictions.items()}
    raters = [] if verdicts is None else _judges(context, verdicts, by_model)
    others = [name for name in by_model if name not in judges]
    for name in others:
        verdict = hard_verdicts(by_model[name])
        raters.append(Rater(name, "model", [verdict], by_model[name], measured=context.position_effect(name)))
    raters = _with_price_of_panel(raters)
    blend = context.blend[first]
    return [*raters, Rater("blend", "blend", [hard_verdicts(blend)], blend)]


def _with_price_of_panel(raters: Sequence[Rater]) -> list[Rater]:
    """Return the raters with the panel at the price of all its judges, if all have one."""
    prices = [rater.cost_per_1000 for rater in raters if rater.kind == "judge"]
    known = [price for price in prices if price is not None]
    total = sum(known) if known and len(known) == len(prices) else None
    return [
        dataclasses.replace(rater, cost_per_1000=total) if rater.name == PANEL and rater.kind == "model" else rater
        for rater in raters
    ]


def _judges(context: ReportContext, verdicts: Verdicts, by_model: Mapping[str, Probabilities]) -> list[Rater]:
    table, outcomes = verdicts.read("train"), context.records.outcomes
    raters = []
    for model, judge in verdicts.judges.items():
        own = table.filter(pc.equal(table["judge"], judge))
        by_order = {order: _annotation(own, order, context.records.rows("train"), outcomes) for order in _ORDERS}
        given = {order: values for order, values in by_order.items() if not np.isnan(values).all()}
        raters.append(
            Rater(
                judge,
                "judge",
                list(given.values()),
                by_model.get(model),
                _cost(own, judge, context.settings.judges[verdicts.manifest["metrics"]["tables"][judge]]),
                _mean(own["seconds"]),
                list(given),
            )
        )
    return raters


def _annotation(verdicts: pa.Table, order: str | None, records: int, outcomes: Sequence[str]) -> Doubles:
    """Return a judge's hard verdicts (n, k) in one order."""
    own = verdicts.filter(pc.is_null(verdicts["order"]) if order is None else pc.equal(verdicts["order"], order))
    rows: Ints = own["record"].to_numpy()
    shares = np.zeros((len(rows), len(OUTCOMES)))
    given = own["shares"].is_valid().to_numpy()
    if given.any():
        shares[given] = np.stack(own["shares"].drop_null().to_pylist())
    scores = [own[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("score_a", "score_b")]
    side = np.sign(np.nan_to_num(scores[0] - scores[1]))
    shares[~given] = np.eye(len(OUTCOMES))[np.select([side > 0, side < 0], [_A, _B], _TIE)][~given]
    annotation = np.full((records, len(outcomes)), np.nan)
    annotation[rows] = hard_verdicts(_by_outcomes(shares, outcomes))
    return annotation


def hard_verdicts(probabilities: Probabilities) -> Doubles:
    """Return the most probable outcome (n, k), one-hot; outcomes that are equally probable share it."""
    top = probabilities >= probabilities.max(axis=1, keepdims=True) - 1e-12
    shares: Doubles = np.where(np.isnan(probabilities), np.nan, top / np.maximum(top.sum(axis=1, keepdims=True), 1))
    return shares


def _by_outcomes(shares: Doubles, outcomes: Sequence[str]) -> Doubles:
    """Return shares (n, 4) by the outcomes of the run; what they lack counts as a tie, or half for each side."""
    merged = shares.copy()
    if "both_bad" not in outcomes:
        merged[:, _TIE] += merged[:, _BOTH_BAD]
    if "tie" not in outcomes:
        merged[:, :_TIE] += merged[:, [_TIE]] / 2
    return merged[:, [OUTCOMES.index(outcome) for outcome in outcomes]]


def _half_wins(shares: Doubles) -> Doubles:
    wins: Doubles = shares[:, 0] + shares[:, 2:].sum(axis=1) / 2
    return wins


def _cost(verdicts: pa.Table, judge: str, table: JudgeTable) -> float | None:
    """Return the dollars of 1,000 verdicts: the settings', else the mean of the verdicts'."""
    cost = table.cost_per_1000
    if isinstance(cost, dict):
        cost = cost.get(judge)
    if cost is not None:
        return float(cost)
    mean = _mean(verdicts["cost"])
    return None if mean is None else 1000 * mean


def _mean(column: Any) -> float | None:  # noqa: ANN401 - a column of Arrow
    mean = pc.mean(column).as_py()
    return None if mean is None else float(mean)


def of_rows(rater: Rater, rows: Ints) -> Rater:
    """Return a rater with a row for each row of the votes; `rows` (m,) are their records."""
    return dataclasses.replace(
        rater,
        annotations=[values[rows] for values in rater.annotations],
        probabilities=None if rater.probabilities is None else rater.probabilities[rows],
    )
