import importlib.metadata

from core.fingerprints import model_identity


def test_a_folder_is_known_by_its_files(tmp_path):
    (tmp_path / "one/deep").mkdir(parents=True)
    (tmp_path / "one/deep/weights").write_bytes(b"1")
    (tmp_path / "two/deep").mkdir(parents=True)
    (tmp_path / "two/deep/weights").write_bytes(b"1")
    assert model_identity(str(tmp_path / "one")) == model_identity(str(tmp_path / "two"))
    (tmp_path / "two/deep/weights").write_bytes(b"2")
    assert model_identity(str(tmp_path / "one")) != model_identity(str(tmp_path / "two"))


def test_a_package_is_known_by_its_version_and_a_hub_model_by_its_name():
    assert model_identity("anywhere", "numpy") == f"numpy=={importlib.metadata.version('numpy')}"
    assert model_identity("owner/model") == "owner/model"
