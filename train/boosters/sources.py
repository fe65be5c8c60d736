"""Which other sources of votes boosters are trained on, and what each is worth."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from core.progress import say
from core.ray_session import connect
from core.run import Run, StageResult
from core.stage import Stage
from featurize.outputs import plain_names
from featurize.store import FeatureStore
from metrics.intervals import bootstrap_means, interval
from train.boosters.stages import share_data, source_weights

if TYPE_CHECKING:
    from votes.records import Records

# Part of the fingerprint: raise it when the study comes out differently.
VERSION = 3
STUDY = "study.json"


def study_sources(run: Run, records: Records, features: str) -> StageResult | None:
    """Make sources/study.json if there are other sources; `features` is the features' fingerprint.

    Raises InputError if there are no columns to judge them by, and the settings want to have some chosen.
    """
    if source_weights(run) and not _plain_families(run):
        if run.settings.data.sources == "select":
            raise InputError(
                "other sources of votes are judged by a plain model, which needs hand-made features",
                where="featurize.families",
                fix="name some, such as [length, style], or train on all sources with data.sources: all.",
            )
        say("sources", "what each is worth is not known: a plain model to judge them by needs featurize.families")
    stage = study_stage(run, records, features)
    if stage is None:
        return None
    weights = source_weights(run)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult("sources", True, manifest, _notes(manifest["metrics"]))

    from core.placement import wait_for
    from train.boosters.source_gains import choose, source_gains

    connect(run)
    stage.begin()
    say("sources", f"a plain model without other sources, and with each of {', '.join(weights)}")
    _, folds = records.labels_and_folds()
    plain = _plain_families(run)
    data = share_data(run, FeatureStore.open(run, records), records, plain)
    wait_for(data, "reading the features", functools.partial(say, "sources"))
    gains = source_gains(data, len(weights), folds, functools.partial(say, "sources"))
    groups = records.read("train", ["group"])["group"].to_numpy()
    used = choose(gains, folds)
    samples = bootstrap_means(gains.T, groups, seed=run.settings.seed)
    found = {
        name: {
            "weight": weight,
            "rows": records.rows(f"source-{name}"),
            "gain": float(gains[n].mean()),
            "ci95": list(interval(samples[:, n])),
            "used_in_folds": int(used[:, n].sum()),
        }
        for n, (name, weight) in enumerate(weights.items())
    }
    by_name = {name: used[:, n].tolist() for n, name in enumerate(weights)}  # for each fold
    stage.folder.write_json(STUDY, {"sources": found, "used": by_name})
    manifest = stage.commit(rows={"train": len(folds)}, metrics={"sources": found}, keep={STUDY})
    return StageResult("sources", False, manifest, _notes(manifest["metrics"]))


def study_stage(run: Run, records: Records, features: str) -> Stage | None:
    """The stage of sources/; None if there are no other sources, or no columns to judge them by.

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
    """What a plain model sees.

    Not n-grams and vectors: a linear model takes all columns as dense ones, and says as much of a source without.
    """
    return plain_names(run.settings.featurize)


def used_sources(run: Run) -> npt.NDArray[np.bool_] | None:
    """Which folds train on which sources (folds, sources), as the study chose; None if they train on all."""
    if not source_weights(run) or run.settings.data.sources == "all":
        return None
    used = (run.folder / "sources").read_json(STUDY)["used"]
    return np.array([used[name] for name in source_weights(run)], dtype=np.bool_).T


def inputs_of(run: Run, records: Records, features: str) -> dict[str, str]:
    """What boosters' models depend on, for their fingerprints; `features` is the features' fingerprint."""
    study = study_stage(run, records, features) if run.settings.data.sources == "select" else None
    of_study = {} if study is None else {"sources": study.fingerprint}
    return {"records": records.fingerprint, "features": features, **of_study}


def _notes(found: dict[str, Any]) -> list[str]:
    return [describe(name, values) for name, values in found["sources"].items()]


def describe(name: str, values: dict[str, Any]) -> str:
    """What a source is worth, in a sentence."""
    low, high = values["ci95"]
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "makes no clear difference"
    gain = f"{values['gain']:+.4f} ({low:+.4f} to {high:+.4f})"
    return f"{name} {verdict}: it takes {gain} off the log loss; trained on in {values['used_in_folds']} folds"
