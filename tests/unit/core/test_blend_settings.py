"""Settings of the blend."""

import pytest

from core.errors import InputError
from core.settings.loader import load_settings

SETTINGS = "run: runs/x\ndata: {train: a.csv}\nboosters: [{name: a, engine: lightgbm}]\nblend: {submission: learnt}\n"


def test_the_old_spelling_of_learned_gets_the_new_one():
    with pytest.raises(InputError, match="Fix: write 'learned', its new name") as raised:
        load_settings(SETTINGS, "x.yaml", [])
    assert "blend.submission" in str(raised.value)
