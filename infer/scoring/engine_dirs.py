"""Clean up temporary files of engines, such as sockets, which vLLM leaves when its process is killed. Ray ends actors
by killing them. So each engine has its own temporary folder. The next engine on the same machine removes the folders of
dead engines.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from core.errors import InputError
from core.private_dir import create_private_folder

_PREFIX: Final = "tb-"  # short, since the path of a socket has 104 characters at most on some systems
_YOUNG_SECONDS: Final = 60.0  # a new folder may not be locked yet
_descriptors: list[int] = []  # file descriptors, whose locks end with the process in any case


def use_own_temporary_folder() -> Path:
    """Set a private temporary folder for this process and its children. Remove the folders of dead processes."""
    shared = Path(tempfile.gettempdir())
    _remove_dead(shared)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=shared))
    _descriptors.append(os.open(folder, os.O_RDONLY))
    fcntl.flock(_descriptors[-1], fcntl.LOCK_EX)
    # What torch compiles is worth keeping for other engines, in a folder where no other user can put code. Not in
    # torch's own, which a umask may have opened to a group.
    with contextlib.suppress(InputError):
        compiled = create_private_folder(shared / f"tiebreak-compiled-{os.getuid()}")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def _remove_dead(shared: Path) -> None:
    for folder in shared.glob(f"{_PREFIX}*"):
        # Another engine may remove it at the same time, and another user's cannot be removed.
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _YOUNG_SECONDS:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
