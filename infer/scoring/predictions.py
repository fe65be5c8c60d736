"""What scoring leaves: predictions/<name> with its quarantine, and what the report says of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.progress import say
from core.resources import resource_seconds
from infer.scoring.requests import Probabilities, answer_files, least_sure
from infer.scoring.swap_scoring import Masks, Outcome, model_fingerprint
from metrics.scores import log_loss
from votes import predictions
from votes.swap import PositionEffect, position_effect

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.llm import Llm
    from infer.scoring.checkpoints import Scorer
    from infer.scoring.engines import Scoring
    from votes.records import Records

CURVE = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a cascade's share: points for the report


@dataclass(frozen=True)
class Cheaper:
    """A cascade's cheaper model: its predictions, and the records it is least sure of."""

    predictions: Mapping[str, Probabilities]
    passed_on: Masks


def read_cheaper(run: Run, records: Records, llm: Llm) -> Cheaper | None:
    """The cheaper model of a language model behind a cascade."""
    if llm.cascade is None:
        return None
    values = {split: predictions.read_predictions(run, records, llm.cascade.model, split) for split in records.splits}
    # Records without a cheaper prediction have only this one.
    passed_on = {split: least_sure(value, llm.cascade.share) | np.isnan(value[:, 0]) for split, value in values.items()}
    return Cheaper(values, passed_on)


def commit(
    scoring: Scoring, scorers: Sequence[Scorer], scored: list[Outcome], cheaper: Cheaper | None
) -> dict[str, Any]:
    """Write predictions and quarantine, and return the stage's manifest.

    Raises RuntimeError if more records failed than the settings allow.
    """
    records, llm, stage = scoring.records, scoring.llm, scoring.stage
    values = {split: _together(split, scored) for split in records.splits}
    filled = values
    if cheaper is not None:
        filled = {split: np.where(np.isnan(each), cheaper.predictions[split], each) for split, each in values.items()}
        folds_of = [scorer.fold for scorer in scorers if scorer.fold is not None]
        if folds_of and "train" in filled:  # a model of some folds predicts these alone
            filled["train"][~np.isin(records.labels_and_folds()[1], folds_of)] = np.nan
    lost = _quarantine(records, scored, filled)
    stage.folder.write_table(predictions.QUARANTINE, lost, stage.fingerprint)
    asked = sum(int(np.any([one.masks[split] for one in scored], axis=0).sum()) for split in records.splits)
    if len(lost):
        first = lost.slice(0, 1).to_pylist()[0]
        told = f"{len(lost)} of {asked} records could not be scored, first {first['id']}: {first['reason']}"
        if len(lost) > llm.max_failed * asked or len(lost) == asked:
            raise RuntimeError(
                f"{llm.name}: {told}. All are in {stage.folder / predictions.QUARANTINE}; "
                f"llms.{llm.name}.max_failed lets a share of {llm.max_failed:g} fail"
            )
        say(stage.name, told)
    rows = {}
    for split in records.splits:
        table = records.read(split, ["id", *(["fold"] if split == "train" else [])])
        there = ~np.isnan(filled[split][:, 0])
        folds = table["fold"].to_numpy()[there] if split == "train" else None
        made = predictions.table(table["id"].filter(pa.array(there)), filled[split][there], folds)
        stage.folder.write_table(f"{split}.parquet", made, stage.fingerprint)
        rows[split] = len(made)
    keep = {
        name
        for scorer in scorers
        for name in answer_files(stage.folder, scorer.prefix, model_fingerprint(stage, scorer))
    }
    keep |= {predictions.QUARANTINE, *(f"{split}.parquet" for split in records.splits)}
    return stage.commit(rows=rows, metrics=_metrics(records, llm, scored, values, cheaper, len(lost)), keep=keep)


def _quarantine(records: Records, scored: list[Outcome], filled: Mapping[str, Probabilities]) -> pa.Table:
    """The records that failed, with reason, and whether a cheaper model's prediction stands in for them."""
    rows: list[dict[str, Any]] = []
    for split in records.splits:
        reasons = {row: reason for one in scored for row, reason in one.reasons[split].items()}
        if reasons:
            ids = records.read(split, ["id"])["id"].to_pylist()
            rows += [
                {"split": split, "id": ids[row], "reason": why, "replaced": not np.isnan(filled[split][row, 0])}
                for row, why in sorted(reasons.items())
            ]
    return pa.Table.from_pylist(rows, predictions.QUARANTINED)


def _together(split: str, scored: list[Outcome]) -> Probabilities:
    """Training records have one checkpoint's prediction each; for others, all checkpoints' are averaged."""
    stacked = np.stack([one.values[split] for one in scored])
    if split != "train":
        mean: Probabilities = stacked.mean(axis=0)
        return mean
    result = np.full(stacked.shape[1:], np.nan)
    for one in scored:
        mask = one.masks[split]
        result[mask] = one.values[split][mask]
    return result


def _metrics(
    records: Records,
    llm: Llm,
    scored: list[Outcome],
    values: Mapping[str, Probabilities],
    cheaper: Cheaper | None,
    failed: int,
) -> dict[str, Any]:
    replicas = llm.replica_range[0]  # at least: how many more there were, and for how long, is not known
    seconds = sum(one.seconds for one in scored) * replicas
    found: dict[str, Any] = {
        "requests": sum(one.requests for one in scored),
        "distinct_requests": sum(one.distinct for one in scored),
        "records_in_both_orders": sum(len(first) for one in scored for first, _ in one.both.values()),
        "position": _position(scored),
        "tokens": sum(one.tokens for one in scored),
        "failed": failed,
        **resource_seconds(seconds, llm.cpus_per_replica, llm.gpus_per_replica),
    }
    if cheaper is not None and llm.cascade is not None:
        cost = found["gpu_seconds"] or found["core_seconds"]
        found["cascade"] = {"model": llm.cascade.model, "share": llm.cascade.share}
        if "train" in values:
            found["cascade"]["points"] = _curve(records, values["train"], cheaper, llm.cascade.share, cost)
    return found


def _position(scored: list[Outcome]) -> PositionEffect | None:
    """What the order of the answers does to a model; None if it read no record in both."""
    pairs = [pair for one in scored for pair in one.both.values() if len(pair[0])]
    if not pairs:
        return None
    return position_effect(*(np.concatenate([pair[n] for pair in pairs]) for n in (0, 1)))


def _curve(
    records: Records, dear: Probabilities, cheaper: Cheaper, share: float, seconds: float
) -> list[dict[str, float]]:
    """Out-of-fold log loss against seconds, were only a part of the records passed on.

    Seconds are this model's alone, and go by the number of records: the cheaper one sees all of them anyhow.
    """
    labels, _ = records.labels_and_folds()
    cheap = cheaper.predictions["train"]
    there = ~np.isnan(cheap[:, 0]) & ~(cheaper.passed_on["train"] & np.isnan(dear[:, 0]))
    points = []
    for part in CURVE:
        passed_on = least_sure(cheap, share * part) & ~np.isnan(dear[:, 0])
        mixed = np.where(passed_on[:, None], dear, cheap)[there]
        points.append({"share": share * part, "log_loss": log_loss(mixed, labels[there]), "seconds": seconds * part})
    return points
