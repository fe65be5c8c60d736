"""Write predictions/<name> with its quarantine, and the report's numbers about scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core import logs
from core.resources import resource_seconds
from infer.scoring.requests import reply_files, select_most_uncertain
from metrics.scores import vote_log_loss
from votes import predictions
from votes.swap import PositionEffect, position_effect

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.run import Run
    from core.settings.llm import Llm
    from core.stage import Stage
    from infer.scoring.requests import RecordMasks
    from infer.scoring.swap import CheckpointScores
    from votes.records import Records

CASCADE_CURVE_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of a cascade's share, for points in the report


@dataclass(frozen=True)
class CascadeInput:
    """The cheaper model of a cascade: its predictions, and the records it is least sure of."""

    predictions: Mapping[str, Probabilities]
    passed_on: RecordMasks


def read_cascade_input(run: Run, records: Records, llm: Llm) -> CascadeInput | None:
    """Read the predictions of the cheaper model; None if the language model has no cascade."""
    if llm.cascade is None:
        return None
    values = {split: predictions.read_predictions(run, records, llm.cascade.model, split) for split in records.splits}
    # Records without a cheaper prediction have only this one.
    passed_on = {
        split: select_most_uncertain(value, llm.cascade.share) | np.isnan(value[:, 0])
        for split, value in values.items()
    }
    return CascadeInput(values, passed_on)


@dataclass(frozen=True)
class ScoredModel:
    """A language model with the scores of all its checkpoints."""

    llm: Llm
    records: Records
    scores: Sequence[CheckpointScores]
    folds: Sequence[int]  # of the checkpoints that were trained by folds
    cheaper: CascadeInput | None = None


def commit_predictions(stage: Stage, scored: ScoredModel, replies: Mapping[str, str]) -> dict[str, Any]:
    """Write predictions and quarantine, and return the stage's manifest.

    `replies` are the folders of replies to keep, with the fingerprints of the models that gave them.

    Raises RuntimeError if more records failed than the settings allow.
    """
    records, llm, cheaper = scored.records, scored.llm, scored.cheaper
    own = {split: _combined(split, scored.scores) for split in records.splits}
    values = own
    if cheaper is not None:
        values = {split: np.where(np.isnan(array), cheaper.predictions[split], array) for split, array in own.items()}
        if scored.folds and "train" in values:  # a model of some folds predicts these alone
            values["train"][~np.isin(records.folds(), scored.folds)] = np.nan
    failed = _quarantine(records, scored.scores, values)
    stage.folder.write_table(predictions.QUARANTINE_FILE, failed, stage.fingerprint)
    count = sum(int(np.any([score.masks[split] for score in scored.scores], axis=0).sum()) for split in records.splits)
    if len(failed):
        first = failed.slice(0, 1).to_pylist()[0]
        message = f"{len(failed)} of {count} records could not be scored, first {first['id']}: {first['reason']}"
        if len(failed) > llm.max_failed * count or len(failed) == count:
            raise RuntimeError(
                f"{llm.name}: {message}. All are in {stage.folder / predictions.QUARANTINE_FILE}; "
                f"llms.{llm.name}.max_failed lets a share of {llm.max_failed:g} fail"
            )
        logs.info(stage.name, message)
    rows = {split: _write(stage, records, split, values[split]) for split in records.splits}
    keep = {name for folder, model in replies.items() for name in reply_files(stage.folder, folder, model)}
    keep |= {predictions.QUARANTINE_FILE, *(f"{split}.parquet" for split in records.splits)}
    return stage.commit(rows=rows, metrics=_metrics(scored, own, len(failed)), keep=keep)


def _write(stage: Stage, records: Records, split: str, values: Probabilities) -> int:
    """Write the predictions of a split, without records that have none; return how many there are."""
    table = records.read(split, ["id", *(["fold"] if split == "train" else [])])
    scored = ~np.isnan(values[:, 0])
    folds = table["fold"].to_numpy()[scored] if split == "train" else None
    predicted = predictions.predictions_table(table["id"].filter(pa.array(scored)), values[scored], folds)
    stage.folder.write_table(f"{split}.parquet", predicted, stage.fingerprint)
    return len(predicted)


def _quarantine(records: Records, scores: Sequence[CheckpointScores], values: Mapping[str, Probabilities]) -> pa.Table:
    """Return the records that failed, with reason, and whether a cheaper model's prediction stands in for them."""
    rows: list[dict[str, Any]] = []
    for split in records.splits:
        reasons = {row: reason for score in scores for row, reason in score.reasons[split].items()}
        if reasons:
            ids = records.read(split, ["id"])["id"].to_pylist()
            rows += [
                {"split": split, "id": ids[row], "reason": reason, "replaced": not np.isnan(values[split][row, 0])}
                for row, reason in sorted(reasons.items())
            ]
    return pa.Table.from_pylist(rows, predictions.QUARANTINE_COLUMNS)


def _combined(split: str, scores: Sequence[CheckpointScores]) -> Probabilities:
    """Combine the checkpoints: a training record has one checkpoint's prediction, others have the mean of all."""
    stacked = np.stack([score.probabilities[split] for score in scores])
    if split != "train":
        mean: Probabilities = stacked.mean(axis=0)
        return mean
    result = np.full(stacked.shape[1:], np.nan)
    for score in scores:
        mask = score.masks[split]
        result[mask] = score.probabilities[split][mask]
    return result


def _metrics(scored: ScoredModel, own: Mapping[str, Probabilities], failed: int) -> dict[str, Any]:
    llm, scores = scored.llm, scored.scores
    workers = llm.worker_range[0]  # at least: how many more there were, and for how long, is not known
    seconds = sum(score.seconds for score in scores) * workers
    metrics: dict[str, Any] = {
        "requests": sum(score.requests for score in scores),
        "distinct_requests": sum(score.distinct for score in scores),
        "records_in_both_orders": sum(len(first) for score in scores for first, _ in score.both_orders.values()),
        "position": _position(scores),
        "tokens": sum(score.tokens for score in scores),
        "failed": failed,
        **resource_seconds(seconds, llm.cpus_per_worker, llm.gpus_per_worker),
    }
    if scored.cheaper is not None and llm.cascade is not None:
        cost = metrics["gpu_seconds"] or metrics["core_seconds"]
        metrics["cascade"] = {"model": llm.cascade.model, "share": llm.cascade.share}
        if "train" in own:
            metrics["cascade"]["points"] = _curve(scored, own["train"], llm.cascade.share, cost)
    return metrics


def _position(scores: Sequence[CheckpointScores]) -> PositionEffect | None:
    """Return the position effect of a model, or None if it read no record in both orders."""
    pairs = [pair for score in scores for pair in score.both_orders.values() if len(pair[0])]
    if not pairs:
        return None
    return position_effect(*(np.concatenate([pair[n] for pair in pairs]) for n in (0, 1)))


def _curve(scored: ScoredModel, own: Probabilities, share: float, seconds: float) -> list[dict[str, float]]:
    """Return out-of-fold log loss against seconds, if only a part of the records were passed on.

    Seconds are this model's alone, in proportion to the records: the cheaper model sees all of them anyway.
    """
    assert scored.cheaper is not None
    votes = scored.records.vote_counts()
    cheap = scored.cheaper.predictions["train"]
    scored_mask = ~np.isnan(cheap[:, 0]) & ~(scored.cheaper.passed_on["train"] & np.isnan(own[:, 0]))
    points = []
    for part in CASCADE_CURVE_SHARES:
        passed_on = select_most_uncertain(cheap, share * part) & ~np.isnan(own[:, 0])
        mixed = np.where(passed_on[:, None], own, cheap)[scored_mask]
        loss = vote_log_loss(mixed, votes[scored_mask])
        points.append({"share": share * part, "log_loss": loss, "seconds": seconds * part})
    return points
