"""Register feature families, booster engines, scoring modes and report sections, one file each.

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
import pkgutil
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from core.errors import InputError

ENTRY_POINTS: Final = "tiebreak.plugins"
_PLUGIN_MODULE: Final = "tiebreak_plugin_"  # with the file's stem behind it
Member = TypeVar("Member")


class Registry:
    """The members of one kind, by name, in the order of registration."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._members: dict[str, Any] = {}
        self._loaded = False

    def register(self, member: type[Member]) -> type[Member]:
        """Register an instance of the class under its attribute `name`. Use as a decorator.

        Raises InputError if another module has registered the name.
        """
        instance: Any = member()
        other = self._members.get(instance.name)
        if other is not None and type(other).__module__ != member.__module__:
            raise InputError(
                f"two {self.kind}s are named {instance.name!r}", member.__module__, "give one of them another name."
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

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self._package)
        for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
            importlib.import_module(f"{self._package}.{module.name}")
        load_entry_points()


FAMILIES: Final = Registry("feature family", "featurize.families")
ENGINES: Final = Registry("booster engine", "train.boosters.engines")
MODES: Final = Registry("scoring mode", "infer.scoring.modes")
SECTIONS: Final = Registry("report section", "report.sections")


@functools.cache
def load_entry_points() -> None:
    """Import the modules that installed packages name in the entry points `tiebreak.plugins`."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        point.load()


def read_plugin(path: str) -> dict[str, str]:
    """Return the source of a plugin file by the name of its module. Raises InputError if it cannot be read."""
    try:
        source = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", f"--plugin {path}", "give the path of a Python file.") from error
    return {f"{_PLUGIN_MODULE}{Path(path).stem.replace('-', '_')}": source}


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
        try:
            exec(compile(source, f"<plugin {name.removeprefix(_PLUGIN_MODULE)}>", "exec"), module.__dict__)
        except InputError:
            raise
        except Exception as error:  # whatever a plugin's code raises
            del sys.modules[name]
            raise InputError(
                f"{type(error).__name__}: {error}", f"plugin {name.removeprefix(_PLUGIN_MODULE)}", "fix the file."
            ) from error


def plugin_digest(member: object) -> str:
    """Return the digest of the plugin that a member comes from, for fingerprints; empty for members of the project."""
    source = sys.modules[type(member).__module__].__dict__.get("__source__")
    return "" if source is None else hashlib.blake2b(source.encode(), digest_size=8).hexdigest()
