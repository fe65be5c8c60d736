import os

import pytest

from core.errors import InputError
from core.private_dir import create_private_folder

ANOTHER = 12345  # a user


def open_to_all(path):
    path.mkdir()
    path.chmod(0o777)


def of_another(path):
    if os.geteuid() != 0:
        pytest.skip("giving a folder away needs root")
    path.mkdir(mode=0o700)
    os.chown(path, ANOTHER, ANOTHER)


def a_link(path):
    (path.parent / "home").mkdir(mode=0o700)
    path.symlink_to(path.parent / "home")


def a_dangling_link(path):
    path.symlink_to(path.parent / "absent")


def a_file(path):
    path.touch(mode=0o600)


def test_is_made_once_for_this_user_alone(tmp_path):
    folder = create_private_folder(tmp_path / "cache")
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "file").touch()
    assert create_private_folder(tmp_path / "cache") == folder
    assert (folder / "file").exists()


@pytest.mark.parametrize("make", [open_to_all, of_another, a_link, a_dangling_link, a_file])
def test_what_another_user_may_have_made_is_refused(make, tmp_path):
    make(tmp_path / "cache")
    with pytest.raises(InputError, match="another user may have chosen"):
        create_private_folder(tmp_path / "cache")
