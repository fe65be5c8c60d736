"""The stages of boosters, and the settings that their models depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.registry import ENGINES, plugin_digest
from core.stage import Stage, require_versions

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.boosters import Booster
    from votes.records import Records

# Part of fingerprints: raise it when the same settings train other models.
VERSION = 3


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
    engine = ENGINES.get(booster.engine)
    plugin = plugin_digest(engine)
    return {
        "seed": run.settings.seed,
        "version": VERSION,
        **booster.model_dump(mode="json", exclude={"cpus_per_worker", "fold_weights"}),
        "sources": source_weights(run),
        "versions": require_versions(engine.libraries) | ({"plugin": plugin} if plugin else {}),
    }


def source_weights(run: Run) -> dict[str, float]:
    """Return the weights of other sources of votes by name, in order. Sources with weight 0 are omitted."""
    return {source.name: source.weight for source in run.settings.data.others if source.weight > 0}
