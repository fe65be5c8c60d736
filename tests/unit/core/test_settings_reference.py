"""The reference of settings: complete, described, and as docs/settings.md has it."""

import pytest

from core.registry import FAMILIES
from core.settings.reference import all_rows, help_text, markdown
from tests.helpers.commands import ROOT


def test_every_setting_is_described():
    assert not [row.key for row in all_rows(FAMILIES) if not row.description.endswith(".")]


def test_settings_of_feature_families_are_among_them():
    keys = {row.key for row in all_rows(FAMILIES)}
    assert {"featurize.families.ngrams.max_features", "featurize.families.word2vec.dimensions"} <= keys


def test_the_page_is_up_to_date():
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page == markdown(), "run `python -m core.settings.reference > docs/settings.md`"


@pytest.mark.parametrize(("section", "other"), [("blend", "boosters"), ("boosters", "blend")])
def test_help_shows_the_sections_that_a_job_reads(section, other):
    lines = help_text([section]).splitlines()
    assert any(line.startswith(f"  {section}.") for line in lines)
    assert not any(line.startswith(f"  {other}.") for line in lines)
