"""The packages: layers, chains of imports, names, signatures, and the size of folders."""

import ast

import pytest

from ray_jobs.__main__ import JOBS
from tests.helpers.structure import (
    MAY_IMPORT,
    ROOT,
    imported_names,
    imports,
    longest_chain,
    modules,
    parameter_counts,
    public_names,
    variable_names,
)

LONGEST_CHAIN = 9
LARGEST_FOLDER = 25
MOST_PARAMETERS = 6
# Names that every member of an interface has: each job module has a JOB, each versioned module a VERSION.
INTERFACE_NAMES = {"JOB", "VERSION", "main"}
# Fragile libraries, and the only modules that import them.
ONLY_IMPORTERS = {
    "xgboost_ray": {"train.boosters.engines.xgboost", "train.boosters.ray_compat"},  # lightgbm_ray is built on it
    "lightgbm_ray": {"train.boosters.engines.lightgbm"},
    "ray.data.llm": {"infer.scoring.vllm_engine"},
}
BANNED_NAMES = {"found", "made", "of", "told", "there", "theirs", "each"}


def test_ray_jobs_holds_the_jobs_and_nothing_else():
    names = {path.stem for path in (ROOT / "ray_jobs").iterdir() if path.suffix == ".py"}
    assert names == {*JOBS, "__init__", "__main__"}
    assert not [path for path in (ROOT / "ray_jobs").iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_short_and_imported_by_nobody(job):
    assert 30 <= len((ROOT / f"ray_jobs/{job}.py").read_text("utf-8").splitlines()) <= 120
    assert not [module for module, targets in imports().items() if f"ray_jobs.{job}" in targets]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_packages_below_it(package):
    for module, targets in imports().items():
        if module.partition(".")[0] == package:
            assert {target.partition(".")[0] for target in targets} <= MAY_IMPORT[package] | {package}, module


def test_chains_of_imports_are_short():
    chains = [longest_chain(module) for module in imports()]
    assert not [" -> ".join(chain) for chain in chains if len(chain) > LONGEST_CHAIN]


def test_no_folder_holds_many_files():
    folders = {path.parent for package in (*MAY_IMPORT, "tests") for path in (ROOT / package).rglob("*.py")}
    sizes = {str(folder): len([path for path in folder.iterdir() if path.is_file()]) for folder in folders}
    assert not {folder: size for folder, size in sizes.items() if size > LARGEST_FOLDER}


def test_no_public_name_is_defined_twice():
    assert not {
        name: places for name, places in public_names().items() if len(places) > 1 and name not in INTERFACE_NAMES
    }


def test_signatures_are_short():
    assert not [counted for counted in parameter_counts() if counted[2] > MOST_PARAMETERS]


def test_variables_are_nouns():
    assert not {(module, name) for module, name in variable_names() if name in BANNED_NAMES}


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_each_fragile_library_is_imported_where_it_should_be(library):
    users = {
        module
        for module, tree in modules().items()
        if any(name == library or name.startswith(f"{library}.") for name in imported_names(tree))
    }
    assert users == ONLY_IMPORTERS[library]


def test_only_the_registry_runs_code_that_a_user_names():
    """Settings are data: code of a user's comes by --plugin and entry points alone."""
    users = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval")
    }
    assert users == {"core.registry"}
