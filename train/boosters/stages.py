"""The stages of boosters, and the data that they are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.registry import ENGINES, plugin_digest
from core.stage import Stage
from train.boosters.load import load_data

if TYPE_CHECKING:
    from core.arrays import Mask
    from core.run import Run
    from core.settings.boosters import Booster
    from featurize.store import FeatureStore
    from votes.records import Records

# Part of fingerprints: raise it when the same settings train other models.
VERSION = 2


def booster_stages(run: Run, records: Records, booster: Booster, inputs: Mapping[str, str]) -> tuple[Stage, Stage]:
    """Return the stages of models/<name> and predictions/<name>.

    The booster has the parameters that its search found; `inputs` are fingerprints, see train.boosters.sources.
    """
    models = Stage(
        f"train_boosters/{booster.name}",
        run.folder / f"models/{booster.name}",
        settings=booster_stage_settings(run, booster),
        inputs=inputs,
    )
    outputs = Stage(
        models.name,
        run.folder / f"predictions/{booster.name}",
        {"fold_weights": booster.fold_weights},
        {"records": records.fingerprint, "models": models.fingerprint},
    )
    return models, outputs


def booster_stage_settings(run: Run, booster: Booster) -> dict[str, Any]:
    """Return the settings that a booster's models depend on, for fingerprints."""
    plugin = plugin_digest(ENGINES.get(booster.engine))
    return {
        "seed": run.settings.seed,
        "version": VERSION,
        **booster.model_dump(mode="json", exclude={"cpus_per_worker", "fold_weights"}),
        "sources": source_weights(run),
        **({"plugin": plugin} if plugin else {}),
    }


def source_weights(run: Run) -> dict[str, float]:
    """Return the weights of other sources of votes by name, in order; those of weight 0 are omitted."""
    return {source.name: source.weight for source in run.settings.data.others if source.weight > 0}


def share_data(
    run: Run,
    features: FeatureStore,
    records: Records,
    families: Sequence[str] | None,
    used_sources: Mask | None = None,
) -> Any:  # noqa: ANN401 - a Ray object reference
    """Return a reference to boosters' data, which a worker puts into the object store; the driver never holds it.

    A source that no fold uses is left out.
    """
    import ray

    weights = source_weights(run)
    if used_sources is not None:
        used = np.any(used_sources, axis=0).tolist()
        weights = {name: weight for (name, weight), is_used in zip(weights.items(), used, strict=True) if is_used}
        used_sources = used_sources[:, np.flatnonzero(used)] if weights else None
    return ray.remote(num_cpus=1)(load_data).remote(features, records, families, weights, used_sources)
