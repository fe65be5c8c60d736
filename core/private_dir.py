"""Create directories under /tmp that only the current user can write."""

import contextlib
import os
import platform
import stat
from pathlib import Path

from core.errors import InputError


def create_private_folder(path: Path) -> Path:
    """Create `path` if it is missing, and return it if only the current user owns and may write it.

    Raises InputError for a folder of another user, a folder that others may write, or a link. A link could make us
    delete what it points to.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    is_shared = status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if is_shared or not stat.S_ISDIR(status.st_mode):
        raise InputError(
            f"not a folder that only you may write on {platform.node()}, so another user may have chosen what is in it",
            where=str(path),
            fix="remove it on that machine, or start Ray there with TMPDIR set to your own folder.",
        )
    return path
