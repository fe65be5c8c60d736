"""What a contributor's tools cover: every package is installed, typed and checked, and the tiers are as documented."""

import re
import tomllib

import pytest

from tests.helpers.commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
INSTALLED = [package for package in PACKAGES if package not in ("tests", "benchmarks", "examples")]


@pytest.mark.parametrize("package", INSTALLED)
def test_a_package_is_installed_with_its_types(package):
    assert f"{package}*" in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_checked(package):
    assert package in PROJECT["tool"]["mypy"]["files"]
    assert package in PROJECT["tool"]["ruff"]["lint"]["isort"]["known-first-party"]


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "README.md"])
def test_a_documented_target_exists(file):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    documented = set(re.findall(r"`make ([a-z-]+)", (ROOT / file).read_text("utf-8")))
    assert documented
    assert documented <= targets


def test_every_development_tool_is_pinned():
    pins = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements/lock.txt").read_text("utf-8"), re.MULTILINE))
    tools = {re.split(r"[=<>\[]", tool)[0] for tool in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert tools - {"tiebreak"} <= pins


def test_ci_runs_what_the_guide_says():
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make check",
        "make test-tools || echo 'without test-tools: the tests that need them are skipped'",
        "make test",
    ]
