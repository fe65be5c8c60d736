"""Model folders of a run as folders on this machine, which is what transformers and vLLM load."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from pyarrow import fs

from featurize.files import resolve
from ray_jobs.storage import Folder

_CACHE = "tiebreak-models"


def local_folder(folder: Folder, fingerprint: str) -> str:
    """The folder itself if it is on a file system, else a copy of it on this machine, made once for all processes.

    `fingerprint` tells what is in the folder, so that a copy of something older is never taken for it.
    """
    filesystem, path = resolve(folder.uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return path
    # The user's own, since others could put a model of theirs into a place that everybody may write.
    cache = Path(tempfile.gettempdir()) / f"{_CACHE}-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():
        raise PermissionError(f"{cache} belongs to another user")
    target = cache / fingerprint
    with open(cache / f"{fingerprint}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            half = cache / f"{fingerprint}.part"
            shutil.rmtree(half, ignore_errors=True)
            for name in folder.files():
                (half / name).parent.mkdir(parents=True, exist_ok=True)
                folder.copy_to(name, half / name)
            half.rename(target)
    return str(target)
