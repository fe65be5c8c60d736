"""The run itself: its stages, library versions and settings."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from core.registry import SECTIONS
from core.stage import read_manifest
from report.section import ReportSection
from report.sections.run.figures import timeline_figure

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.schema import Settings
    from report.context import ReportContext
    from report.section import Metrics


@SECTIONS.register
class RunSection(ReportSection):
    """The run itself."""

    name, title, order = "run", "Run", 130
    summary = "Seconds of each stage, library versions and settings."
    figures = MappingProxyType({"timeline": timeline_figure})

    def compute(self, context: ReportContext) -> Metrics:
        """Return the stages in the order of their ends, and the versions of libraries."""
        return {"run": {"stages": _timeline(context.run), "versions": context.records.manifest["versions"]}}

    def details(self, context: ReportContext, metrics: Metrics) -> dict[str, Any]:
        """Return the settings as JSON."""
        return {"settings": context.settings.model_dump_json(indent=2)}


def _timeline(run: Run) -> list[dict[str, Any]]:
    """Return the finished stages in the order of their ends: seconds, end, and the seconds of all earlier stages."""
    folders = _stage_folders(run.settings)
    manifests = [manifest for name in folders if (manifest := read_manifest(run.folder / name)) is not None]
    stages: list[dict[str, Any]] = []
    before = 0.0
    for manifest in sorted(manifests, key=lambda manifest: str(manifest["finished"])):
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


def _stage_folders(settings: Settings) -> list[str]:
    finetuned = [model.name for model in settings.finetune.models]
    return [
        "demo/pairs",
        "records",
        "features",
        *(f"tune/{search.booster}" for search in settings.tune),
        *(f"demo/llm-{llm.name}" for llm in settings.llms if llm.demo),
        "sources",
        *(f"scratch/{encoder.name}" for encoder in settings.finetune.encoders if encoder.scratch is not None),
        *(f"models/{llm.name}" for llm in settings.llms if llm.adapter is not None),
        *(f"tokens/{name}" for name in [*finetuned, *(llm.name for llm in settings.llms)]),
        *(f"models/{name}" for name in finetuned),
        *(f"predictions/{name}" for name in settings.models),
        "blend",
    ]
