"""Select the needed models of a finished run, and check that they do not change during prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import InputError
from core.run import Run
from core.settings.loader import load_settings
from core.stage import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from core.run import StageResult
    from core.settings.schema import Settings
    from votes.records import Records

    # Writes predictions/<name> of new records, in the folder of another run with the same settings.
    Predictor = Callable[[Run, Records], list[StageResult]]
    Stamps = dict[str, tuple[Any, Any]]


def as_trained(run: Run) -> Run:
    """Return a finished run with the tables that it was trained with: `run` may name those of new pairs.

    --force never reaches the finished run.
    """
    file, settings = "settings.json", run.settings
    if run.folder.exists(file):
        saved = load_settings(run.folder.read_bytes(file).decode(), f"{run.folder}/{file}")
        settings = settings.model_copy(update={"judges": saved.judges, "features": saved.features})
    return Run(settings)


def with_cheaper_models(settings: Settings, names: Sequence[str]) -> list[str]:
    """Return the names and the cheaper models of their cascades, in the order of the settings."""
    needed = set(names)
    for llm in reversed(settings.llms):  # a cheaper model stands before the model whose cascade starts with it
        if llm.name in needed and llm.cascade is not None:
            needed.add(llm.cascade.model)
    return [name for name in settings.models if name in needed]


def read_stamps(run: Run, models: Sequence[str]) -> Stamps:
    """Return the fingerprint and finish time of the features and of each model, by folder."""
    stamps = {}
    for folder in ("features", *(_model_folder(run, model) for model in models)):
        manifest = read_manifest(run.folder / folder) or {}
        stamps[folder] = manifest.get("fingerprint"), manifest.get("finished")
    return stamps


def _model_folder(run: Run, model: str) -> str:
    """Return the folder of a model in the run. External checkpoints lie elsewhere, and no job rewrites them.

    The calibration of a judge is written together with its predictions.
    """
    if model in run.settings.judge_models:
        return f"predictions/{model}"
    finetuned = {llm.name: llm.finetuned for llm in run.settings.llms if llm.finetuned is not None}
    return f"models/{finetuned.get(model, model)}"


def check_unchanged(finished: Run, new: Run, stamps: Mapping[str, tuple[Any, Any]], models: Sequence[str]) -> None:
    """Raise InputError if a model differs from its stamp, and remove its predictions.

    The finished run is not locked, so another job may have rebuilt parts of it in the meantime.
    """
    now = read_stamps(finished, models)
    changed = [folder for folder in now if now[folder] != stamps[folder]]
    if not changed:
        return
    features = ["features"] if "features" in changed else []
    mixed = [model for model in models if features or _model_folder(finished, model) in changed]
    for folder in (*(f"predictions/{model}" for model in mixed), *features):
        (new.folder / folder).delete_all()
    raise InputError(
        f"another job has rebuilt this in the meantime: {', '.join(changed)}",
        where=str(finished.folder),
        fix="run the same command again when that job has ended.",
    )
