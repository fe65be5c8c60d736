"""The structure of the code, read from its source: imports, public names, signatures."""

import ast
import collections
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOWER = ["core", "votes", "metrics", "featurize", "train"]
# Which packages a package may import at run time, apart from itself. Infer reads the checkpoints that training leaves.
MAY_IMPORT = {
    **{name: set(LOWER[:n]) for n, name in enumerate(LOWER)},
    "tune": {*LOWER},
    "demo": {*LOWER},
    "infer": {*LOWER, "demo"},
    "report": {*LOWER, "tune", "infer", "demo"},
    "clusters": set(),
    "ray_jobs": {*LOWER, "tune", "infer", "report", "demo"},
}


def module_name(path: Path) -> str:
    """Return the dotted name of a module by its path."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax trees of the product's modules by name."""
    paths = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): ast.parse(path.read_text("utf-8")) for path in paths}


def imported_names(tree: ast.Module) -> set[str]:
    """Return the dotted names that a module imports at run time, anywhere in its code."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports at run time."""
    graph: dict[str, set[str]] = {}
    for name, tree in modules().items():
        targets = set()
        for imported in imported_names(tree):
            if imported in modules():
                targets.add(imported)
            elif imported.rpartition(".")[0] in modules():
                targets.add(imported.rpartition(".")[0])
        graph[name] = targets - {name}
    return graph


def longest_chain(module: str) -> tuple[str, ...]:
    """Return the longest chain of imports that starts at a module. Raises ValueError for a cycle."""
    return _longest(module, frozenset())


@functools.cache
def _longest(module: str, above: frozenset[str]) -> tuple[str, ...]:
    if module in above:
        raise ValueError(f"{module} is in a circle of imports")
    known = _CHAINS.get(module)
    if known is None:
        chains = [_longest(target, above | {module}) for target in imports()[module]]
        known = _CHAINS[module] = (module, *max(chains, key=len, default=()))
    return known


_CHAINS: dict[str, tuple[str, ...]] = {}


def public_names() -> dict[str, list[str]]:
    """Return the modules that define each public top-level name."""
    names = collections.defaultdict(list)
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names[node.name].append(module)
            for target in _targets(node):
                names[target].append(module)
    return {name: found for name, found in names.items() if not name.startswith("_")}


def _targets(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def parameter_counts() -> Iterator[tuple[str, str, int]]:
    """Yield module, function and number of parameters, without self and cls."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                yield module, node.name, len([name for name in names if name not in ("self", "cls")])


def variable_names() -> Iterator[tuple[str, str]]:
    """Yield module and name of every variable and parameter."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield module, node.id
            elif isinstance(node, ast.arg):
                yield module, node.arg
