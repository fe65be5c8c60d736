"""The temporary files of an engine: sockets and more, which vLLM leaves behind wherever its process is killed.

Ray ends actors by killing them, so each engine has a folder of its own, and the next on the same machine removes those
of engines that are gone.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from core.errors import InputError
from core.private_dir import private_folder

_PREFIX: Final = "tb-"  # short, since the path of a socket has 104 characters at most on some systems
_YOUNG_SECONDS: Final = 60.0  # a folder that was just made may not be locked yet
_held: list[int] = []  # file descriptors, whose locks end with the process, however it ends


def own_temporary_folder() -> Path:
    """Give this process and those that it starts a temporary folder of their own; remove those of dead processes."""
    shared = Path(tempfile.gettempdir())
    _remove_dead(shared)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=shared))
    _held.append(os.open(folder, os.O_RDONLY))
    fcntl.flock(_held[-1], fcntl.LOCK_EX)
    # What torch compiles is worth keeping for other engines, if nobody else may put code there. Not in torch's own
    # folder, which a umask may have opened to a group.
    with contextlib.suppress(InputError):
        compiled = private_folder(shared / f"tiebreak-compiled-{os.getuid()}")
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled))
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


def _remove_dead(shared: Path) -> None:
    for folder in shared.glob(f"{_PREFIX}*"):
        # Another engine may remove it at the same time, and another user's is theirs.
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _YOUNG_SECONDS:
                continue
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(held)
