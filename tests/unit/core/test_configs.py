"""The configurations that the project ships."""

import pytest

from core.settings.loader import load_settings
from tests.helpers.commands import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path):
    assert load_settings(path.read_text(encoding="utf-8"), path.name).run.startswith("runs/")
