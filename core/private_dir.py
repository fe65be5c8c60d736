"""Folders in places that everybody may write, such as /tmp, whose contents nobody else may choose."""

import contextlib
import os
import platform
import stat
from pathlib import Path

from core.errors import InputError


def private_folder(path: Path) -> Path:
    """`path`, which is made if it is not there, as a folder that is this user's and that no other may write.

    Raises InputError where another user may have put something: a folder of theirs, one that others may write, or a
    link, which could also make us delete what it leads to.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    theirs = found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if theirs or not stat.S_ISDIR(found.st_mode):
        raise InputError(
            f"not a folder that only you may write on {platform.node()}, so another user may have chosen what is in it",
            where=str(path),
            fix="remove it there, or start Ray there with TMPDIR set to a folder of your own.",
        )
    return path
