"""The cache of models from object stores. Here a folder behind a file system that is not local stands for one."""

import os
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from core import model_cache, storage
from core.errors import InputError
from core.model_cache import CheckpointRef, fetch_folder
from core.storage import Folder


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder behind bucket://."""
    root = tmp_path / "bucket"
    root.mkdir()
    remote = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())

    def resolve(uri):
        return remote, uri.removeprefix("bucket://")

    for module in (model_cache, storage):
        monkeypatch.setattr(module, "resolve_filesystem", resolve)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return root


def write(bucket, name, text, time):
    path = bucket / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time, time))


def test_a_copy_is_made_once_and_again_when_the_content_changes(bucket, tmp_path):
    write(bucket, "fold-0/model/a.txt", "one", 1)
    write(bucket, "fold-0/model/deep/b.txt", "two", 1)
    folder, other = Folder("bucket://fold-0/model"), Folder("bucket://fold-1/model")
    first = Path(fetch_folder(folder, "f"))
    assert (first / "deep/b.txt").read_text() == "two"
    (first / "mark").touch()
    assert fetch_folder(folder, "f") == str(first)
    assert (first / "mark").exists()

    write(bucket, "fold-1/model/a.txt", "one", 1)
    neighbour = Path(fetch_folder(other, "f"))
    assert neighbour != first

    # Trained again with the same settings: as many bytes, and others.
    write(bucket, "fold-0/model/a.txt", "eno", 2)
    second = Path(fetch_folder(folder, "f"))
    assert (second / "a.txt").read_text() == "eno"
    assert not first.exists()
    assert neighbour.exists()


def test_an_unused_copy_is_removed_for_the_next(bucket):
    for fold in range(3):
        write(bucket, f"fold-{fold}/a.txt", "one", 1)
    first, second = (Path(fetch_folder(Folder(f"bucket://fold-{fold}"), "f")) for fold in range(2))
    for copy in (first, second):
        os.utime(copy, (1, 1))
    assert Path(fetch_folder(Folder("bucket://fold-0"), "f")) == first  # used again
    fetch_folder(Folder("bucket://fold-2"), "f")
    assert first.exists()
    assert not second.exists()


def test_a_link_in_place_of_the_cache_is_refused_and_its_target_kept(bucket, tmp_path):
    write(bucket, "m/a.txt", "one", 1)
    old = tmp_path / "home/letters"
    old.mkdir(parents=True)
    os.utime(old, (1, 1))
    (tmp_path / f"tiebreak-models-{os.getuid()}").symlink_to(tmp_path / "home")
    with pytest.raises(InputError, match="another user may have chosen"):
        fetch_folder(Folder("bucket://m"), "f")
    assert list((tmp_path / "home").iterdir()) == [old]


def test_an_incomplete_copy_is_not_used(bucket, monkeypatch):
    write(bucket, "m/a.txt", "one", 1)
    write(bucket, "m/b.txt", "two", 1)
    real = Folder.copy_to

    def killed(folder, name, path):
        if name == "b.txt":
            raise KeyboardInterrupt
        real(folder, name, path)

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "copy_to", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch_folder(Folder("bucket://m"), "f")
    assert sorted(path.name for path in Path(fetch_folder(Folder("bucket://m"), "f")).iterdir()) == ["a.txt", "b.txt"]


def test_a_header_only_copy_has_the_header_and_takes_no_disk(bucket):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    (bucket / "m").mkdir()
    save_file({"score.weight": np.ones((3, 1_000_000), np.float32)}, bucket / "m/model.safetensors")
    write(bucket, "m/tokenizer.json", "{}", 1)
    header_only = Path(CheckpointRef("bucket://m", "f").header_only())
    assert (header_only / "tokenizer.json").read_text() == "{}"
    weights = header_only / "model.safetensors"
    assert weights.stat().st_size == (bucket / "m/model.safetensors").stat().st_size
    assert weights.stat().st_blocks * 512 < 100_000
    with safe_open(weights, "numpy") as file:
        assert file.get_slice("score.weight").get_shape() == [3, 1_000_000]
    copy = Path(CheckpointRef("bucket://m", "f").local())
    assert copy != header_only
    assert (copy / "model.safetensors").read_bytes() == (bucket / "m/model.safetensors").read_bytes()
    assert header_only.exists()


@pytest.mark.parametrize("location", ["owner/model", "/models/folder"])
def test_a_hub_id_or_a_folder_is_used_in_place(location):
    checkpoint = CheckpointRef(location, "f")
    assert checkpoint.local() == checkpoint.header_only() == location
