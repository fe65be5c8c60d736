"""The inputs of boosters, and which other sources of votes they are trained on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core import logs
from core.errors import InputError
from core.ray_session import connect
from core.run import Run, StageResult
from core.stage import Stage
from featurize.outputs import plain_entry_names
from featurize.store import FeatureStore
from metrics.intervals import bootstrap_means, percentile_interval
from train.boosters.load import put_data
from train.boosters.stages import source_weights
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.arrays import Mask

# Part of the fingerprint: raise it when the study comes out differently.
VERSION = 3
STUDY_FILE = "study.json"


@dataclass(frozen=True)
class TrainingInputs:
    """The finished stages that boosters are trained on."""

    records: Records
    fingerprints: Mapping[str, str]  # see `input_fingerprints`
    study: StageResult | None  # of other sources


def training_inputs(run: Run) -> TrainingInputs:
    """Return the inputs of boosters; studies the other sources of votes if that is not done yet.

    Raises InputError if records or features are missing.
    """
    records = open_records(run)
    features = run.require("features", "featurize", records.fingerprint)["fingerprint"]
    study = study_sources(run, records, features)
    return TrainingInputs(records, input_fingerprints(run, records, features), study)


def study_sources(run: Run, records: Records, features: str) -> StageResult | None:
    """Write sources/study.json if there are other sources; `features` is the features' fingerprint.

    Raises InputError if the settings select sources, but there are no columns to judge them by.
    """
    if source_weights(run) and not _plain_families(run):
        if run.settings.data.sources != "all":
            raise InputError(
                "the study of other sources of votes needs hand-made features",
                where="featurize.families",
                fix="add some, such as [length, style], or train on all sources with data.sources: all.",
            )
        logs.info("sources", "the gain of other sources is unknown: its measurement needs hand-made features")
    stage = study_stage(run, records, features)
    if stage is None:
        return None
    weights = source_weights(run)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult("sources", True, manifest, _notes(manifest["metrics"]))

    from core.placement import wait_for_task
    from train.boosters.source_gains import select_sources, source_gains

    connect(run)
    stage.begin()
    logs.info("sources", f"training a plain model without other sources, and with each of {', '.join(weights)}")
    folds = records.folds()
    plain = _plain_families(run)
    data = put_data(run, FeatureStore.open(run, records), records, plain)
    wait_for_task(data, "reading the features", functools.partial(logs.info, "sources"))
    gains = source_gains(data, len(weights), folds, functools.partial(logs.info, "sources"))
    groups = records.read("train", ["group"])["group"].to_numpy()
    used = select_sources(gains, folds)
    samples = bootstrap_means(gains.T, groups, seed=run.settings.seed)
    sources = {
        name: {
            "weight": weight,
            "rows": records.rows(f"source-{name}"),
            "gain": float(gains[n].mean()),
            "ci95": list(percentile_interval(samples[:, n])),
            "used_in_folds": int(used[:, n].sum()),
        }
        for n, (name, weight) in enumerate(weights.items())
    }
    by_name = {name: used[:, n].tolist() for n, name in enumerate(weights)}  # by fold
    stage.folder.write_json(STUDY_FILE, {"sources": sources, "used": by_name})
    manifest = stage.commit(rows={"train": len(folds)}, metrics={"sources": sources}, keep={STUDY_FILE})
    return StageResult("sources", False, manifest, _notes(manifest["metrics"]))


def study_stage(run: Run, records: Records, features: str) -> Stage | None:
    """Return the stage of sources/; None if there are no other sources, or no columns to judge them by.

    `features` is the features' fingerprint.
    """
    weights = source_weights(run)
    if not weights or not _plain_families(run):
        return None
    return Stage(
        "sources",
        run.folder / "sources",
        settings={"version": VERSION, "seed": run.settings.seed, "weights": weights},
        inputs={"records": records.fingerprint, "features": features},
    )


def _plain_families(run: Run) -> list[str]:
    """Return the families that the plain model sees.

    N-grams and vectors are not among them. A linear model takes all columns as dense ones, and measures a source as
    well without these.
    """
    return plain_entry_names(run.settings.featurize)


def read_used_sources(run: Run) -> Mask | None:
    """Return the sources that each fold trains on (folds, sources), as the study says; None if it trains on all."""
    if not source_weights(run) or run.settings.data.sources == "all":
        return None
    used = (run.folder / "sources").read_json(STUDY_FILE)["used"]
    return np.array([used[name] for name in source_weights(run)], dtype=np.bool_).T


def input_fingerprints(run: Run, records: Records, features: str) -> dict[str, str]:
    """Return the fingerprints of what boosters' models depend on; `features` is the features' fingerprint."""
    study = study_stage(run, records, features) if run.settings.data.sources != "all" else None
    sources = {} if study is None else {"sources": study.fingerprint}
    return {"records": records.fingerprint, "features": features, **sources}


def _notes(metrics: dict[str, Any]) -> list[str]:
    return [describe_gain(name, values) for name, values in metrics["sources"].items()]


def describe_gain(name: str, values: dict[str, Any]) -> str:
    """Return a source's gain in a sentence."""
    low, high = values["ci95"]
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no clear difference"
    gain = f"{values['gain']:+.4f} ({low:+.4f} to {high:+.4f})"
    return f"{name} {verdict}: it lowers the log loss by {gain}; used in {values['used_in_folds']} folds"
