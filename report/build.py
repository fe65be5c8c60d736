"""Score every model and blend out-of-fold, and write the report.

metrics.json holds every number that index.html shows; report_numbers.py says how the page marks them.
"""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.ray_session import on_worker
from core.run import Run, StageResult
from core.stage import Stage, require_finished
from demo import stages
from infer.ensemble.fallbacks import STRENGTH
from infer.ensemble.stage import blend_stage, preset_of
from metrics.baselines import class_prior, length_only, uniform
from metrics.scores import log_loss, record_log_loss
from report.columns import column_file, gather_columns
from report.page import page
from report.scores import calibration, gains, side_by_side
from report.sections.bias import bias
from report.sections.boosters import drivers, feature_columns, importances, searches, source_study
from report.sections.data import data
from report.sections.finetune import curves, on_the_same_rows
from report.sections.llms import scoring
from report.sections.run import costs, timeline
from report.sections.slices import slices
from report.sections.worst import worst
from train.boosters.data import EXPLAIN_ROWS
from votes import predictions
from votes.records import Records, open_records
from votes.schema import LABELS

Floats = npt.NDArray[np.float64]

# Part of the fingerprint: raise it when the same run is reported differently.
VERSION = 4


def make_report(run: Run) -> list[StageResult]:
    """Make report/metrics.json and report/index.html from the finished blend and predictions."""
    records = open_records(run)
    blended = require_finished(blend_stage(run, records), "blend")
    models = run.settings.models
    stage = Stage(
        "report",
        run.folder / "report",
        settings={"version": VERSION, **run.settings.model_dump(mode="json")},  # the page shows them all
        inputs={"blend": blended["fingerprint"], **predictions.model_fingerprints(run, records, models)},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("report", True, manifest)]
    return [StageResult("report", False, on_worker(run, _make, run, records, blended, stage))]


def _make(run: Run, records: Records, blended: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Make the report; returns the manifest."""
    started = time.monotonic()
    stage.begin()
    columns = gather_columns(run, records, stage.folder)
    scores = score(run, records, blended, columns)
    stage.folder.write_json("metrics.json", scores)
    stage.folder.write_bytes("index.html", page(run, records, scores).encode())
    kept = {column_file(shard) for split in records.splits for shard in records.shards(split)}
    return stage.commit(
        rows={"train": records.rows("train")},
        metrics=scores,
        keep={"metrics.json", "index.html", *kept},
        seconds=time.monotonic() - started,
    )


def score(run: Run, records: Records, blended: dict[str, Any], columns: dict[str, pa.Table]) -> dict[str, Any]:
    """Every number of the report."""
    votes = records.read("train", ["id", "label", "fold", "group", "model_a", "model_b"])
    labels, folds, groups = (votes[name].to_numpy() for name in ("label", "fold", "group"))
    train, seed = columns["train"], run.settings.seed
    predicted = {name: predictions.read_predictions(run, records, name, "train") for name in run.settings.models}
    # Models that do not predict every record: of some folds only, or with records in quarantine.
    incomplete = [name for name, values in predicted.items() if np.isnan(values).any()]
    whole = {name: values for name, values in predicted.items() if name not in incomplete}
    chars_a, chars_b = (train[f"chars_{side}"].to_numpy().astype(np.float64) for side in "ab")
    sets = {
        "baselines": {
            "uniform": uniform(len(labels)),
            "class prior": class_prior(labels, folds),
            "length only": length_only(chars_a, chars_b, labels, folds),
        },
        "models": whole,
        "variants": {name: _blend(run, name) for name in blended["metrics"]["weights"]},
    }
    truth = stages.truth(run, votes["id"])
    if truth is not None:
        sets["baselines"]["truth (best attainable)"] = truth
    scored = side_by_side(sets, labels, groups, seed)
    chosen = blended["settings"]["submission"]
    blend = sets["variants"][chosen]
    losses = record_log_loss(blend, labels)
    others = {"class prior": sets["baselines"]["class prior"], **predicted, "blend": blend}
    same_rows = {name: on_the_same_rows(name, others, labels, groups, seed) for name in incomplete}
    for name, found in same_rows.items():
        folds_of = {"folds": run.settings.partial[name]} if name in run.settings.partial else {}
        scored["models"][name] = {**found["beside"][name], **folds_of, "records": found["rows"]}
    for name, cost in costs(run).items():
        scored["models"][name]["cost"] = cost
    importance = importances(run)
    return {
        "rows": len(labels),
        "labels": dict(zip(LABELS, np.bincount(labels, minlength=3).tolist(), strict=True)),
        "summary": _summary(
            sets, {name: predicted[name] for name in run.settings.blended}, blend, labels, groups, seed
        ),
        "baselines": scored["baselines"],
        "models": scored["models"],
        "blend": {
            "submission": chosen,
            **scored["variants"][chosen],
            "weights": blended["metrics"]["weights"],
            "pools": blended["metrics"]["pools"],
            "calibration": blended["settings"]["calibration"],
            "preset": preset_of(run),
            "prior_votes": STRENGTH,
            "length_taken_out": bool(blended["settings"]["length_debias"]),
            "variants": scored["variants"],
            "analysis": (run.folder / "blend").read_json("analysis.json"),
        },
        "calibration": calibration(blend, labels),
        "bias": bias(run, train, {**predicted, "blend": blend}, labels, groups),
        "slices": slices(train, votes, losses, groups, seed),
        "importance": importance,
        "drivers": drivers(importance),
        "explained_rows": EXPLAIN_ROWS,
        "features": feature_columns(run),
        "search": searches(run),
        "sources": source_study(run),
        "same_rows": same_rows,
        "curves": curves(run),
        "scoring": scoring(run),
        "worst": worst(votes["id"].to_pylist(), blend, labels, losses),
        "data": data(records, columns, losses, folds, groups, seed),
        "run": {"stages": timeline(run), "versions": records.manifest["versions"]},
    }


def _blend(run: Run, name: str) -> Floats:
    return predictions.probabilities((run.folder / "blend").read_table(f"train-{name}.parquet"))


def _summary(
    sets: dict[str, dict[str, Floats]],
    blended: dict[str, Floats],
    blend: Floats,
    labels: npt.NDArray[np.int8],
    groups: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    """What the blend gains over the class prior and over the best single model of it.

    Records that a model does not predict count as the class prior for it: a few in quarantine shall not take the best
    model out of the comparison.
    """
    prior = sets["baselines"]["class prior"]
    whole = {name: np.where(np.isnan(values), prior, values) for name, values in blended.items()}
    plain = {name: sets["baselines"][name] for name in ("class prior", "length only")}
    found = gains(blend, {**plain, **whole}, labels, groups, seed)
    told: dict[str, Any] = {
        "over_class_prior": found["class prior"],
        "over_length_only": found["length only"],
    }
    best = min(whole, key=lambda name: log_loss(whole[name], labels))
    lacks = int(np.isnan(blended[best][:, 0]).sum())
    return told | {"best_model": best, "best_model_lacks": lacks, "over_best_model": found[best]}
