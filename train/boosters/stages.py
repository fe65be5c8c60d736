"""What the jobs that train boosters share: their settings as training takes them, and their data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from train.boosters.load import load_data

if TYPE_CHECKING:
    import numpy.typing as npt

    from core.run import Run
    from core.settings.boosters import Booster
    from featurize.store import FeatureStore
    from train.boosters.data import BoosterSettings
    from votes.records import Records

# Part of fingerprints: raise it when the same settings train other models.
VERSION = 2


def booster_settings(run: Run, booster: Booster) -> BoosterSettings:
    """How training takes a booster's settings."""
    from train.boosters.data import BoosterSettings

    return BoosterSettings(
        rounds=booster.rounds,
        early_stopping_rounds=booster.early_stopping_rounds,
        params=booster.params,
        seed=run.settings.seed,
        cpus_per_fold=booster.cpus_per_fold,
        actors_per_fold=booster.actors_per_fold,
        checkpoint_every=booster.checkpoint_every,
        both_orders=booster.both_orders,
    )


def booster_stage_settings(run: Run, booster: Booster) -> dict[str, Any]:
    """What makes a booster's models, for fingerprints."""
    return {
        "seed": run.settings.seed,
        "version": VERSION,
        **booster.model_dump(mode="json", exclude={"cpus_per_fold", "fold_weights"}),
        "sources": source_weights(run),
    }


def source_weights(run: Run) -> dict[str, float]:
    """Weights of other sources of votes by their names, in order; those of weight 0 are left out."""
    return {source.name: source.weight for source in run.settings.data.others if source.weight > 0}


def share_data(
    run: Run,
    features: FeatureStore,
    records: Records,
    families: Sequence[str] | None,
    used_sources: npt.NDArray[np.bool_] | None = None,
) -> Any:  # noqa: ANN401 - a Ray object reference
    """A reference to boosters' data, put into the object store by a worker; the driver never holds it.

    A source that no fold uses is not in it.
    """
    import ray

    weights = source_weights(run)
    if used_sources is not None:
        used = np.any(used_sources, axis=0).tolist()
        weights = {name: weight for (name, weight), each in zip(weights.items(), used, strict=True) if each}
        used_sources = used_sources[:, np.flatnonzero(used)] if weights else None
    return ray.remote(num_cpus=1)(load_data).remote(features, records, families, weights, used_sources)
