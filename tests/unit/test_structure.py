"""The lines the packages keep: who may import whom, and what a help text may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABOVE = ["core", "votes", "metrics", "featurize", "train"]
MAY_IMPORT = {
    **{name: set(ABOVE[:n]) for n, name in enumerate(ABOVE)},
    "tune": set(ABOVE),
    "infer": set(ABOVE) | {"demo"},
    "report": {*ABOVE, "tune", "infer", "demo"},
    "demo": {*ABOVE},
    "clusters": set(),
    "ray_jobs": {*ABOVE, "tune", "infer", "report", "demo"},
}
DOORS = {
    "xgboost_ray": {"train/boosters/engines/xgboost.py", "train/boosters/ray_compat.py"},  # lightgbm_ray is built on it
    "lightgbm_ray": {"train/boosters/engines/lightgbm.py"},
    "ray.data.llm": {"infer/scoring/vllm_engine.py"},
}
JOBS = [
    "ingest", "featurize", "tune", "train_boosters", "train_encoder", "train_llm", "score_llm", "blend", "report",
    "predict", "pipeline",
]  # fmt: skip


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_those_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        ours = {name.partition(".")[0] for name in imports(path)} & set(MAY_IMPORT)
        assert ours <= MAY_IMPORT[package] | {package}, path


@pytest.mark.parametrize("library", DOORS)
def test_each_fragile_library_is_imported_where_it_should_be(library):
    users = {
        str(path.relative_to(ROOT))
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("*.py")
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    assert users == DOORS[library]


@pytest.mark.parametrize("job", JOBS)
def test_help_is_light(job):
    """No heavy library is loaded for --help, and the docstring says how to run the job."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['{job}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('ray_jobs.{job}', run_name='__main__')\n"
        "except SystemExit:\n"
        "    heavy = {'ray', 'torch', 'transformers', 'vllm', 'sklearn', 'pandas', 'scipy', 'xgboost', 'lightgbm'}\n"
        "    print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert f"Run as: python -m ray_jobs.{job}" in done.stdout
