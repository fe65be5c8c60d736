"""A run: its settings, its folder, and the Ray cluster its stages work on."""

import logging
import os
from dataclasses import dataclass, field
from typing import Any

from preference.errors import InputError
from ray_jobs.artifacts import read_manifest
from ray_jobs.settings import Settings
from ray_jobs.storage import Folder


@dataclass
class StageResult:
    """What one stage did, for the summary at the end."""

    stage: str
    cached: bool
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass
class Run:
    """The settings and folder of a run; `force` redoes stages that are finished."""

    settings: Settings
    force: bool = False

    @property
    def folder(self) -> Folder:
        """The folder that the run leaves its outputs in."""
        return Folder(self.settings.run)

    def finished(self, name: str, job: str) -> dict[str, Any]:
        """The manifest of a stage that another job must have finished. Raises InputError if it has not."""
        manifest = read_manifest(self.folder / name)
        if manifest is None:
            raise InputError(
                f"{name} is not there yet",
                where=self.settings.run,
                fix=f"run `python -m ray_jobs.{job}` with the same configuration first, or ray_jobs.pipeline.",
            )
        return manifest


def connect(run: Run) -> None:
    """Join the cluster of RAY_ADDRESS (as under `ray job submit`), or start a local one; nothing if connected."""
    import ray
    import ray.data

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        # Ray's dashboard would listen on a port that nobody asked for.
        options |= {"num_cpus": run.settings.ray.cpus, "include_dashboard": False}
    # Ray warns that token authentication is on: that is what we want.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(address=address, **options)
    # Our own lines say what matters; Ray Data's would bury them.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
