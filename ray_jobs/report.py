"""Score every model and blend out-of-fold, and write the report.

Run as: python -m ray_jobs.report --config configs/demo.yaml
"""

import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from preference import metrics
from preference.schema import LABELS
from ray_jobs import cli, demo_data, predictions
from ray_jobs.artifacts import Stage, read_manifest
from ray_jobs.records import Records, open_records
from ray_jobs.report_boosters import importances, searches, source_study
from ray_jobs.report_finetune import curves, on_the_same_rows
from ray_jobs.run import Run, StageResult

Floats = npt.NDArray[np.float64]


def report(run: Run) -> list[StageResult]:
    """Make report/metrics.json and report/index.html from the finished blend and predictions."""
    records = open_records(run)
    blended = run.finished("blend", "blend", records.fingerprint)
    models = run.settings.models
    stage = Stage(
        "report",
        run.folder / "report",
        settings=run.settings.model_dump(mode="json"),  # the page shows them all
        inputs={"blend": blended["fingerprint"], **predictions.model_fingerprints(run, records, models)},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("report", True, manifest)]
    stage.begin()
    scores = score(run, records, blended)
    stage.folder.write_json("metrics.json", scores)
    stage.folder.write_bytes("index.html", page(run, records, scores).encode())
    manifest = stage.commit(rows={"train": records.rows("train")}, metrics=scores, keep={"metrics.json", "index.html"})
    return [StageResult("report", False, manifest)]


def score(run: Run, records: Records, blended: dict[str, Any]) -> dict[str, Any]:
    """Every number of the report: baselines, models and blends with their out-of-fold scores and intervals."""
    columns = records.read("train", ["id", "label", "fold", "group"])
    labels, folds, groups = (columns[name].to_numpy() for name in ("label", "fold", "group"))
    predicted = {name: predictions.read_predictions(run, records, name, "train") for name in run.settings.models}
    sets = {
        "baselines": {
            "uniform": metrics.uniform(len(labels)),
            "class prior": metrics.class_prior(labels, folds),
        },
        "models": {name: values for name, values in predicted.items() if name not in run.settings.partial},
        "variants": {name: _blend(run, name) for name in blended["metrics"]["weights"]},
    }
    truth = demo_data.truth(run, columns["id"])
    if truth is not None:
        sets["baselines"]["truth (best attainable)"] = truth
    losses = {
        (kind, name): metrics.record_log_loss(values, labels)
        for kind, named in sets.items()
        for name, values in named.items()
    }
    # One bootstrap for all, so that every interval rests on the same draws of prompts.
    means = metrics.bootstrap_means(np.stack(list(losses.values()), axis=1), groups, seed=run.settings.seed)
    scored: dict[str, dict[str, Any]] = {kind: {} for kind in sets}
    for n, (kind, name) in enumerate(losses):
        scored[kind][name] = {
            **_scores(sets[kind][name], labels),
            "ci95": list(metrics.interval(means[:, n])),
        }
    chosen = blended["settings"]["submission"]
    others = {"class prior": sets["baselines"]["class prior"], **predicted, "blend": sets["variants"][chosen]}
    same_rows = {
        name: on_the_same_rows(name, others, labels, groups, run.settings.seed) for name in run.settings.partial
    }
    for name, found in same_rows.items():
        scored["models"][name] = {**found["beside"][name], "folds": run.settings.partial[name]}
    return {
        "rows": len(labels),
        "labels": dict(zip(LABELS, np.bincount(labels, minlength=3).tolist(), strict=True)),
        "baselines": scored["baselines"],
        "models": scored["models"],
        "blend": {
            "submission": chosen,
            **scored["variants"][chosen],
            "weights": blended["metrics"]["weights"],
            "variants": scored["variants"],
        },
        "importance": importances(run),
        "search": searches(run),
        "sources": source_study(run),
        "same_rows": same_rows,
        "curves": curves(run),
    }


def _blend(run: Run, name: str) -> Floats:
    return predictions.probabilities((run.folder / "blend").read_table(f"train-{name}.parquet"))


def _scores(probabilities: Floats, labels: npt.NDArray[np.int8]) -> dict[str, float]:
    return {
        "oof_log_loss": metrics.log_loss(probabilities, labels),
        "accuracy": metrics.accuracy(probabilities, labels),
        "ece": metrics.expected_calibration_error(probabilities, labels),
    }


def page(run: Run, records: Records, scores: dict[str, Any]) -> str:
    """The report as one self-contained HTML page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ray_jobs"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rows = [("baseline", name, values) for name, values in scores["baselines"].items()]
    rows += [("model", name, values) for name, values in scores["models"].items()]
    rows += [("blend", name, values) for name, values in scores["blend"]["variants"].items()]
    stages = [read_manifest(run.folder / name) for name in _stage_folders(run)]
    low = min(values["ci95"][0] for _, _, values in rows)
    high = max(values["ci95"][1] for _, _, values in rows)
    return environment.get_template("report.html").render(
        scores=scores,
        rows=rows,
        low=low,
        span=max(high - low, 1e-9),
        quarantine=records.manifest["metrics"]["quarantine"],
        records=records.manifest["rows"],
        stages=[manifest for manifest in stages if manifest is not None],
        settings=run.settings.model_dump_json(indent=2),
        versions=records.manifest["versions"],
        families=_families(read_manifest(run.folder / "features") or {}),
        made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )


def _families(features: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The entries of the feature catalogue by family."""
    families: dict[str, list[dict[str, Any]]] = {}
    for entry in features.get("catalogue", []):
        families.setdefault(entry["family"], []).append(entry)
    return families


def _stage_folders(run: Run) -> list[str]:
    made = [f"demo/llm-{llm.name}" for llm in run.settings.llms if llm.demo]
    tuned = [model.name for model in (*run.settings.encoders, *run.settings.trained_llms)]
    return [
        "demo/pairs",
        "records",
        "features",
        *made,
        *(f"models/{name}" for name in tuned),
        *(f"predictions/{name}" for name in run.settings.models),
        "blend",
    ]


if __name__ == "__main__":
    sys.exit(cli.main("report", __doc__, report))
