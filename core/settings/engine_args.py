"""The names of vLLM's engine arguments, read from its source: importing vLLM takes many seconds."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from pathlib import Path

from core.errors import InputError

_SOURCE = "engine/arg_utils.py"  # in the package vllm
_CLASSES = ("EngineArgs", "AsyncEngineArgs")  # the second is the engine's of ray.data.llm, and extends the first


@functools.cache
def known_engine_args() -> frozenset[str]:
    """Return the fields of vLLM's dataclasses of arguments; empty if vLLM is not installed or keeps them elsewhere."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    try:
        tree = ast.parse(Path(spec.submodule_search_locations[0], _SOURCE).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if not all(name in classes for name in _CLASSES):
        return frozenset()
    return frozenset(
        node.target.id
        for name in _CLASSES
        for node in classes[name].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and "ClassVar" not in ast.dump(node)
    )


def check_engine_args(key: str, names: list[str]) -> None:
    """Raise InputError with the nearest name for an argument that vLLM's engine does not have.

    `key` is the setting that holds the arguments. Without vLLM on this machine nothing is checked.
    """
    known = known_engine_args()
    for name in names:
        if known and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            fix = f"did you mean {near[0]!r}?" if near else "remove it."
            raise InputError(f"vLLM's engine has no argument {name!r}", f"{key}.{name}", fix)
