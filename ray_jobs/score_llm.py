"""Score training and test records with language models: vLLM actors under Ray Data.

Run as: python -m ray_jobs.score_llm --config configs/demo.yaml [--dry-run]

A checkpoint that comes trained scores every record, training and test records alike. Of a model that train_llm trained
here, each fold's checkpoint scores the training records of its fold and all test records, for which the folds are
averaged. Each distinct text is scored once. The unit of resume is the shard. With --dry-run nothing is scored: it says
what scoring would take.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infer.llm_settings import LlmSettings
from preference.metrics import log_loss
from preference.swap import swap_average
from ray_jobs import cli, demo_data, predictions
from ray_jobs.artifacts import Stage, fingerprint
from ray_jobs.llm_engines import score_units
from ray_jobs.llm_plan import dry_run
from ray_jobs.llm_requests import (
    ORDERS,
    Answers,
    Packed,
    Wanted,
    least_sure,
    read_answers,
    read_packed,
    tempered,
    units,
)
from ray_jobs.llm_scorers import Scorer, check, check_scorers, packing, scorers
from ray_jobs.local_copy import engine_source
from ray_jobs.progress import say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult
from ray_jobs.settings_llm import Llm
from ray_jobs.tokens import pack_records

Probabilities = npt.NDArray[np.float64]
Masks = Mapping[str, npt.NDArray[np.bool_]]  # by split, (n,)
_QUARANTINE = pa.schema(
    [("split", pa.string()), ("id", pa.string()), ("reason", pa.string()), ("replaced", pa.bool_())]
)
CURVE = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a cascade's share: points for the report


def score_llm(run: Run) -> list[StageResult]:
    """Make predictions/<name> for every language model of the settings."""
    if not run.settings.llms:
        say("score_llm", "nothing to do: the settings name no llms")
        return []
    check(run)
    records = open_records(run)
    results = demo_data.make_checkpoints(run)
    for llm in run.settings.llms:
        results += _score_with(run, records, llm)
    return results


def _score_with(run: Run, records: Records, llm: Llm) -> list[StageResult]:
    found, results = scorers(run, records, llm)
    name, base, how = packing(run, llm, found[0])
    inputs = {"records": records.fingerprint, "checkpoint": fingerprint([scorer.fingerprint for scorer in found])}
    if llm.cascade is not None:
        inputs["cascade"] = predictions.model_fingerprints(run, records, [llm.cascade.model])[llm.cascade.model]
    stage = Stage(
        f"score_llm/{llm.name}",
        run.folder / f"predictions/{llm.name}",
        settings={
            "packing": how.fingerprint,
            "dtype": "float32" if llm.dtype == "auto" and llm.gpus_per_replica == 0 else llm.dtype,
            **llm.model_dump(
                mode="json", include={"mode", "swap", "uncertain_share", "temperature", "cascade", "engine"}
            ),
        },
        inputs=inputs,
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [*results, StageResult(stage.name, True, manifest)]
    check_scorers(llm, found)
    results.append(pack_records(run, records, name, base, how))
    stage.begin()
    if run.force:
        (stage.folder / "shards").delete_all()
    packed = read_packed(run.folder / f"tokens/{name}", records)
    seen = _seen(run, records, llm)
    scored = [
        _Scored(run, records, llm, scorer, stage, packed, name).run(_mask(records, scorer, seen)) for scorer in found
    ]
    return [*results, StageResult(stage.name, False, _commit(run, records, llm, stage, scored, seen))]


def _settings(run: Run, llm: Llm, scorer: Scorer) -> LlmSettings:
    shared = {name: getattr(llm, name) for name in LlmSettings.__dataclass_fields__ if hasattr(llm, name)}
    source, environment = engine_source(scorer.place)
    answers: tuple[int, ...] = ()
    if llm.mode == "judge":
        from preference.judge_prompt import answer_ids
        from train.networks import load_tokenizer

        answers = answer_ids(load_tokenizer(scorer.local()))
    own = {
        "checkpoint": source,
        "environment": environment,
        "answers": answers,
        "replicas": llm.replica_range,
        "patience": llm.patience_s,
        "seed": run.settings.seed,
    }
    return LlmSettings(**{**shared, **own})


@dataclass(frozen=True)
class _Cheaper:
    """A cascade's cheaper model: its predictions, and the records it is least sure of."""

    predictions: Mapping[str, Probabilities]
    passed_on: Masks


def _seen(run: Run, records: Records, llm: Llm) -> _Cheaper | None:
    if llm.cascade is None:
        return None
    values = {split: predictions.read_predictions(run, records, llm.cascade.model, split) for split in records.splits}
    # Records without a cheaper prediction have only this one.
    passed_on = {split: least_sure(value, llm.cascade.share) | np.isnan(value[:, 0]) for split, value in values.items()}
    return _Cheaper(values, passed_on)


def _mask(records: Records, scorer: Scorer, cheaper: _Cheaper | None) -> Masks:
    """Which records a checkpoint is to score."""
    masks = {split: np.ones(records.rows(split), bool) for split in records.splits}
    if scorer.fold is not None:
        _, folds = records.labels_and_folds()
        masks["train"] &= folds == scorer.fold
    if cheaper is not None:
        masks = {split: mask & cheaper.passed_on[split] for split, mask in masks.items()}
    return masks


@dataclass(frozen=True)
class _Outcome:
    """What one checkpoint gave: probabilities by split, nan where there are none, and what it took."""

    masks: Masks
    values: Mapping[str, Probabilities]
    reasons: Mapping[str, Mapping[int, str]]  # by split and row, of records that failed
    failed_files: list[str]  # shards with failed requests in them
    requests: int
    wanted: int  # requests, equal ones counted each
    second: int  # records scored in both orders
    tokens: int
    seconds: float


@dataclass(frozen=True)
class _Scored:
    """One checkpoint at work."""

    all: Run
    records: Records
    llm: Llm
    scorer: Scorer
    stage: Stage
    packed: Packed
    tokens: str  # name of the stage of tokens

    def run(self, masks: Masks) -> _Outcome:
        """Score the records of the masks in one order or both, or in one and then the least sure in the other."""
        both = self.llm.swap == "both"
        wanted = {split: np.stack([mask, mask & both], axis=1) for split, mask in masks.items()}
        answers = self._answers(wanted)
        if self.llm.swap == "uncertain":
            for split, mask in masks.items():
                first = np.where(mask[:, None], answers.probabilities[self.packed.requests[split][:, 0]], np.nan)
                wanted[split][:, 1] = least_sure(first, self.llm.uncertain_share)
            answers = self._answers(wanted)
        values = tempered(answers.probabilities, self.llm.temperature)
        result, failed = {}, {}
        for split, asked in wanted.items():
            numbers = self.packed.requests[split]
            first, second = (np.where(asked[:, [n]], values[numbers[:, n]], np.nan) for n in range(len(ORDERS)))
            result[split] = np.where(asked[:, [1]], swap_average(first, second), first)
            lost = np.flatnonzero(asked[:, 0] & np.isnan(result[split][:, 0]))
            failed[split] = {
                int(row): next(answers.reasons[n] for n in numbers[row].tolist() if n in answers.reasons)
                for row in lost
            }
        requests, tokens = self.packed.count(wanted)
        return _Outcome(
            masks,
            result,
            failed,
            answers.failed,
            requests,
            wanted=int(sum(mask.sum() for mask in wanted.values())),
            second=int(sum(mask[:, 1].sum() for mask in wanted.values())),
            tokens=tokens,
            seconds=answers.seconds,
        )

    def _answers(self, wanted: Wanted) -> Answers:
        model = fingerprint(
            {
                "checkpoint": self.scorer.fingerprint,
                **{name: self.stage.settings[name] for name in ("packing", "dtype", "mode", "engine")},
            }
        )
        asked = units(self.packed, self.records, wanted, self.scorer.prefix, model)
        score_units(
            self.all,
            self.stage,
            asked,
            self.all.folder / f"tokens/{self.tokens}",
            self.packed.tokens,
            _settings(self.all, self.llm, self.scorer),
            self.llm,
        )
        return read_answers(self.stage.folder, asked, len(self.packed.tokens))


def _commit(
    run: Run, records: Records, llm: Llm, stage: Stage, scored: list[_Outcome], cheaper: _Cheaper | None
) -> dict[str, Any]:
    """Write predictions and quarantine, unless more failed than the settings allow."""
    values = {split: _together(split, scored) for split in records.splits}
    filled = values
    if cheaper is not None:
        filled = {split: np.where(np.isnan(each), cheaper.predictions[split], each) for split, each in values.items()}
    lost = _quarantine(records, scored, filled)
    stage.folder.write_table(predictions.QUARANTINE, lost, stage.fingerprint)
    asked = sum(int(np.any([one.masks[split] for one in scored], axis=0).sum()) for split in records.splits)
    if len(lost):
        first = lost.slice(0, 1).to_pylist()[0]
        told = f"{len(lost)} of {asked} records could not be scored, first {first['id']}: {first['reason']}"
        if len(lost) > llm.max_failed * asked:
            for one in scored:
                for file in one.failed_files:
                    stage.folder.delete(file)  # so that the next run tries them again
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
    keep = {name for name in stage.folder.files() if name.startswith("shards/")}
    keep |= {predictions.QUARANTINE, *(f"{split}.parquet" for split in records.splits)}
    return stage.commit(rows=rows, metrics=_metrics(records, llm, scored, values, cheaper, len(lost)), keep=keep)


def _quarantine(records: Records, scored: list[_Outcome], filled: Mapping[str, Probabilities]) -> pa.Table:
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
    return pa.Table.from_pylist(rows, _QUARANTINE)


def _together(split: str, scored: list[_Outcome]) -> Probabilities:
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
    scored: list[_Outcome],
    values: Mapping[str, Probabilities],
    cheaper: _Cheaper | None,
    failed: int,
) -> dict[str, Any]:
    replicas = llm.replica_range[1]
    seconds = sum(one.seconds for one in scored) * replicas
    found: dict[str, Any] = {
        "requests": sum(one.wanted for one in scored),
        "distinct_requests": sum(one.requests for one in scored),
        "records_in_both_orders": sum(one.second for one in scored),
        "tokens": sum(one.tokens for one in scored),
        "failed": failed,
        "gpu_seconds": round(seconds * llm.gpus_per_replica, 1),
        "core_seconds": round(seconds * llm.cpus_per_replica, 1),
    }
    if cheaper is not None and llm.cascade is not None:
        cost = found["gpu_seconds"] or found["core_seconds"]
        found["cascade"] = {"model": llm.cascade.model, "share": llm.cascade.share}
        found["cascade"]["points"] = _curve(records, values["train"], cheaper, llm.cascade.share, cost)
    return found


def _curve(
    records: Records, dear: Probabilities, cheaper: _Cheaper, share: float, seconds: float
) -> list[dict[str, float]]:
    """Out-of-fold log loss against seconds, were only a part of the records passed on; seconds go by their number."""
    labels, _ = records.labels_and_folds()
    cheap = cheaper.predictions["train"]
    there = ~np.isnan(cheap[:, 0]) & ~(cheaper.passed_on["train"] & np.isnan(dear[:, 0]))
    points = []
    for part in CURVE:
        passed_on = least_sure(cheap, share * part) & ~np.isnan(dear[:, 0])
        mixed = np.where(passed_on[:, None], dear, cheap)[there]
        points.append({"share": share * part, "log_loss": log_loss(mixed, labels[there]), "seconds": seconds * part})
    return points


if __name__ == "__main__":
    sys.exit(cli.main("score_llm", __doc__, score_llm, dry_run=dry_run))
