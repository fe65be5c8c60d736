"""Register feature families, booster engines, scoring modes, report sections, vote formats and exports, one file each.

A member's module registers it with the decorator of its registry. Members come from this project, from installed
packages (entry points `tiebreak.plugins`) and from --plugin files. A settings file never names code to load: it is
data.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from core.errors import InputError

ENTRY_POINTS: Final = "tiebreak.plugins"
_PLUGIN_MODULE: Final = "tiebreak_plugin_"  # with the file's stem behind it
Member = TypeVar("Member")


class Registry:
    """The members of one kind, by name, in the order of registration."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._members: dict[str, Any] = {}
        self._state: Literal["new", "loading", "loaded"] = "new"

    def register(self, member: type[Member]) -> type[Member]:
        """Register an instance of the class under its attribute `name`. Use as a decorator.

        Raises InputError if another module has registered the name.
        """
        instance: Any = member()
        other = self._members.get(instance.name)
        if other is not None and type(other).__module__ != member.__module__:
            places = sorted((member.__module__, type(other).__module__), key=lambda name: name.startswith(self.package))
            raise InputError(
                f"the name {instance.name!r} of a {self.kind} is taken by {places[1]}", places[0], "give another name."
            )
        self._members[instance.name] = instance
        return member

    def names(self) -> list[str]:
        """Return the names of all members."""
        self._load()
        return list(self._members)

    def get(self, name: str) -> Any:  # noqa: ANN401 - each package knows its members' type
        """Return a member. Raises InputError with the nearest name if there is none."""
        self._load()
        if name not in self._members:
            near = difflib.get_close_matches(name, self._members, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known names: {', '.join(self._members)}."
            raise InputError(f"no {self.kind} {name!r}", fix=f"{hint} One from a file needs --plugin FILE.")
        return self._members[name]

    def __iter__(self) -> Iterator[Any]:
        self._load()
        return iter(list(self._members.values()))

    def drop(self, module: str) -> None:
        """Drop the members that a module has registered."""
        self._members = {name: member for name, member in self._members.items() if type(member).__module__ != module}

    def _load(self) -> None:
        if self._state != "new":  # modules of members may read the registry while it loads
            return
        self._state = "loading"
        try:
            package = importlib.import_module(self.package)
            for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
                importlib.import_module(f"{self.package}.{module.name}")
            load_entry_points()
        except BaseException:
            self._state = "new"  # the next call fails alike, and does not see half of the members
            raise
        self._state = "loaded"


FAMILIES: Final = Registry("feature family", "featurize.families")
ENGINES: Final = Registry("booster engine", "train.boosters.engines")
MODES: Final = Registry("scoring mode", "infer.scoring.modes")
SECTIONS: Final = Registry("report section", "report.sections")
FORMATS: Final = Registry("vote format", "votes.formats")
EXPORTS: Final = Registry("export", "votes.exports")
VERDICT_FORMATS: Final = Registry("verdict format", "votes.verdicts.formats")
RATING_MODELS: Final = Registry("rating model", "leaderboard.rating_models")
REGISTRIES: Final = (FAMILIES, ENGINES, MODES, SECTIONS, FORMATS, EXPORTS, VERDICT_FORMATS, RATING_MODELS)


@functools.cache
def load_entry_points() -> None:
    """Import the modules that installed packages name in the entry points `tiebreak.plugins`.

    Raises InputError if one fails.
    """
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except InputError:
            raise
        except Exception as error:  # whatever a plugin's code raises
            raise InputError(
                f"{type(error).__name__}: {error}",
                f"the installed plugin {point.name} ({point.value})",
                "install a version of its package that works here, or uninstall it.",
            ) from error


def read_plugin(path: str) -> dict[str, str]:
    """Return the source of a plugin file by the name of its module. Raises InputError if it cannot be read."""
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", f"--plugin {path}", "give the path of a Python file.") from error
    return {f"{_PLUGIN_MODULE}{Path(path).stem.replace('-', '_')}": source}


def read_plugins(paths: Sequence[str]) -> dict[str, str]:
    """Return the sources of plugin files by the names of their modules.

    Raises InputError if one cannot be read, or two would have one module's name.
    """
    sources: dict[str, str] = {}
    for path in paths:
        for name, source in read_plugin(path).items():
            if sources.setdefault(name, source) != source:
                raise InputError("another plugin's file has this name", f"--plugin {path}", "rename one of the files.")
    return sources


def load_plugins(sources: Mapping[str, str]) -> None:
    """Run plugins' sources as modules, each once in this process; their members register themselves.

    Raises InputError if one fails.
    """
    for name, source in sources.items():
        loaded = sys.modules.get(name)
        if loaded is not None and loaded.__dict__.get("__source__") == source:
            continue
        module = types.ModuleType(name)
        module.__dict__["__source__"] = source
        sys.modules[name] = module
        title = f"plugin {name.removeprefix(_PLUGIN_MODULE)}"
        try:
            exec(compile(source, f"<{title}>", "exec"), module.__dict__)
        except BaseException as error:  # whatever a plugin's code raises
            del sys.modules[name]
            for registry in REGISTRIES:
                registry.drop(name)
            if isinstance(error, InputError) or not isinstance(error, Exception):
                raise
            raise InputError(f"{type(error).__name__}: {error}", title, "fix the file.") from error


def plugin_digest(member: object) -> str:
    """Return the digest of the plugin's module that a member comes from, for fingerprints.

    It is empty for members of this project, which have versions of their own.
    """
    module = sys.modules[type(member).__module__]
    if module.__name__.startswith(tuple(f"{registry.package}." for registry in REGISTRIES)):
        return ""
    source = module.__dict__.get("__source__")
    content = Path(inspect.getfile(module)).read_bytes() if source is None else source.encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
