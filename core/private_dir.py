"""Create directories under /tmp that only the current user can write."""

import contextlib
import os
import platform
import stat
from pathlib import Path

from core.errors import InputError


def private_folder(path: Path) -> Path:
    """Return `path`, created if absent, as a folder that belongs to this user and that no other user can write.

    Raises InputError for a folder of another user, a folder that others can write, or a link: a link could also make
    us delete its target.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    foreign = status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if foreign or not stat.S_ISDIR(status.st_mode):
        raise InputError(
            f"other users of {platform.node()} can write this folder, so its contents are not safe to use",
            where=str(path),
            fix="remove it, or start Ray with TMPDIR set to a folder of your own.",
        )
    return path
