"""A run: its settings and its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.filesystems import raise_if_unreachable
from core.stage import require_stage
from core.storage import Folder

if TYPE_CHECKING:
    from core.settings.schema import Settings


@dataclass
class StageResult:
    """The result of one stage, for the summary at the end."""

    stage: str
    cached: bool
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass
class Run:
    """The settings and folder of a run.

    `force` redoes finished stages; `force_unlock` revokes another job's lock on the folder.
    """

    settings: Settings
    force: bool = False
    force_unlock: bool = False

    def __post_init__(self) -> None:
        location = self.settings.run
        if "://" not in location:
            if not os.path.isabs(location) and os.environ.get("RAY_ADDRESS"):
                raise InputError(
                    f"the relative path {location!r} names a different folder on each machine of the cluster",
                    where="run",
                    fix="give an absolute path on shared storage, or a URI.",
                )
            location = os.path.abspath(location)
        self.folder = Folder(location)
        with raise_if_unreachable(location):
            self.folder.refuse_unwritable()

    def require(self, name: str, job: str, records: str | None = None) -> dict[str, Any]:
        """Return the manifest of a stage that `job` must have finished, from records of this fingerprint if given.

        Raises InputError if it is not built, or was built from other records.
        """
        return require_stage(self.folder / name, job, inputs=None if records is None else {"records": records})
