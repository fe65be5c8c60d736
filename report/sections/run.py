"""What the report says of the run itself: what each stage took, and what each model cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.stage import read_manifest

if TYPE_CHECKING:
    from core.run import Run

UNITS = ("core_seconds", "gpu_seconds")


def timeline(run: Run) -> list[dict[str, Any]]:
    """The finished stages in the order of their ends: seconds, when they ended, and the seconds of all before them."""
    manifests = [manifest for name in _stage_folders(run) if (manifest := read_manifest(run.folder / name)) is not None]
    ordered = sorted(manifests, key=lambda manifest: str(manifest["finished"]))
    stages: list[dict[str, Any]] = []
    before = 0.0
    for manifest in ordered:
        stages.append(
            {
                "stage": manifest["stage"],
                "before": before,
                "seconds": float(manifest["seconds"]),
                "finished": manifest["finished"],
                "rows": sum(manifest["rows"].values()),
            }
        )
        before += float(manifest["seconds"])
    return stages


def _stage_folders(run: Run) -> list[str]:
    made = [f"demo/llm-{llm.name}" for llm in run.settings.llms if llm.demo]
    tuned = [model.name for model in run.settings.finetune.models]
    return [
        "demo/pairs",
        "records",
        "features",
        *(f"tune/{search.booster}" for search in run.settings.tune),
        *made,
        "sources",
        *(f"scratch/{encoder.name}" for encoder in run.settings.finetune.encoders if encoder.scratch is not None),
        *(f"models/{llm.name}" for llm in run.settings.llms if llm.adapter is not None),
        *(f"tokens/{name}" for name in [*tuned, *(llm.name for llm in run.settings.llms)]),
        *(f"models/{name}" for name in tuned),
        *(f"predictions/{name}" for name in run.settings.models),
        "blend",
    ]


def costs(run: Run) -> dict[str, dict[str, float]]:
    """By model: the seconds of its training and scoring, times the CPUs or GPUs that they held.

    From the manifests: the seconds that folds and shards took, and of language models also those of their engines'
    start; of what was taken up after a kill only what came then. Neither features, which models share, nor searches
    are in it.
    """
    settings = run.settings
    places = {name: [f"predictions/{name}"] for name in settings.models}
    for encoder in settings.finetune.encoders:
        places[encoder.name].append(f"models/{encoder.name}")
    for llm in settings.llms:
        if llm.finetuned is not None:
            places[llm.name].append(f"models/{llm.finetuned}")
    found: dict[str, dict[str, float]] = {}
    for model, names in places.items():
        metrics = [(read_manifest(run.folder / name) or {"metrics": {}})["metrics"] for name in names]
        found[model] = {unit: sum(float(each.get(unit, 0.0)) for each in metrics) for unit in UNITS}
    return found
