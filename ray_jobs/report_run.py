"""What the report says of the run itself: what each stage took, and what each model cost."""

from typing import Any

from ray_jobs.artifacts import read_manifest
from ray_jobs.run import Run
from ray_jobs.settings import Booster
from ray_jobs.settings_finetune import Encoder, TrainedLlm
from ray_jobs.settings_llm import Llm


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
    tuned = [model.name for model in (*run.settings.encoders, *run.settings.trained_llms)]
    return [
        "demo/pairs",
        "records",
        "features",
        *(f"tune/{search.booster}" for search in run.settings.tune),
        *made,
        "sources",
        *(f"scratch/{encoder.name}" for encoder in run.settings.encoders if encoder.scratch is not None),
        *(f"models/{llm.name}" for llm in run.settings.llms if llm.adapter is not None),
        *(f"tokens/{name}" for name in [*tuned, *(llm.name for llm in run.settings.llms)]),
        *(f"models/{name}" for name in tuned),
        *(f"predictions/{name}" for name in run.settings.models),
        "blend",
    ]


def costs(run: Run) -> dict[str, dict[str, Any]]:
    """By model: the seconds of its training and scoring, times the CPUs or GPUs that they held.

    From the manifests: a fold's or a stage's seconds from its start to its end, so that start-up counts, and for a
    stage that was taken up after a kill only what came then. Features that models share are in no model's cost.
    """
    trained = {model.name: model for model in run.settings.trained_llms}
    found = {booster.name: _of_booster(run, booster) for booster in run.settings.boosters}
    found |= {encoder.name: _of_tuned(run, encoder) for encoder in run.settings.encoders}
    for llm in run.settings.llms:
        of = _of_llm(run, llm)
        tuned = _of_tuned(run, trained[llm.trained]) if llm.trained is not None else _cost(0.0, 0, 0)
        for unit in ("core_seconds", "gpu_seconds"):
            of[unit] += tuned[unit]
        found[llm.name] = of
    return found


def _cost(seconds: float, cpus: int, gpus: int) -> dict[str, float]:
    return {"core_seconds": seconds * cpus, "gpu_seconds": seconds * gpus}


def _of_booster(run: Run, booster: Booster) -> dict[str, float]:
    manifest = read_manifest(run.folder / f"predictions/{booster.name}") or {"metrics": {}}
    seconds = float(manifest["metrics"].get("fold_seconds", 0.0))
    return _cost(seconds, booster.cpus_per_fold * booster.actors_per_fold, 0)


def _of_tuned(run: Run, model: Encoder | TrainedLlm) -> dict[str, float]:
    manifest = read_manifest(run.folder / f"models/{model.name}") or {"seconds": 0.0}
    return _cost(manifest["seconds"], model.workers * model.cpus_per_worker, model.workers * model.gpus_per_worker)


def _of_llm(run: Run, llm: Llm) -> dict[str, float]:
    metrics = (read_manifest(run.folder / f"predictions/{llm.name}") or {"metrics": {}})["metrics"]
    return {unit: float(metrics.get(unit, 0.0)) for unit in ("core_seconds", "gpu_seconds")}
