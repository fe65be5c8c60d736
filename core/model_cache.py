"""References to model checkpoints, and the cache on this machine of those in object stores.

transformers and vLLM load folders. A checkpoint in an object store is copied to a folder once for all processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from pyarrow import fs

from core.errors import InputError
from core.filesystems import raise_if_unreachable, resolve_filesystem
from core.private_dir import create_private_folder
from core.storage import Folder

_CACHE = "tiebreak-models"
# The same weights in other formats, which are never read. A folder of the hub may hold several.
_NOT_LOADED = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".gguf", ".onnx")
_UNUSED_S = 12 * 3600  # after which a copy may be removed: whatever uses it loaded it long before


@dataclass(frozen=True)
class CheckpointRef:
    """A model's checkpoint: a hub id, a folder on every node, an object store's folder, or one of the run."""

    location: str
    fingerprint: str
    in_run: bool = False

    def local(self) -> str:
        """Return a hub id or a local folder. Copy the folder from an object store if necessary."""
        return self._cached(header_only=False)

    def header_only(self) -> str:
        """Return the same, but a copy holds the headers of the weights only; see `fetch_folder`."""
        return self._cached(header_only=True)

    def _cached(self, header_only: bool) -> str:
        is_stored = self.in_run or "://" in self.location
        return fetch_folder(Folder(self.location), self.fingerprint, header_only) if is_stored else self.location


def engine_source(location: str) -> tuple[str, dict[str, str]]:
    """Return a model's location for ray.data.llm, and the environment that its engines need to read it.

    Engines start on any machine with free resources, so each fetches the model from an object store itself. A prefix
    makes ray.data.llm use pyarrow, as we do. It takes a URI's options from the environment.
    """
    if "://" not in location:
        return location, {}
    uri, _, query = location.partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    environment = {}
    if "endpoint_override" in options:
        endpoint = options["endpoint_override"]
        with_scheme = endpoint if "://" in endpoint else f"{options.get('scheme', 'https')}://{endpoint}"
        environment["AWS_ENDPOINT_URL_S3"] = with_scheme
    if "region" in options:
        environment["AWS_DEFAULT_REGION"] = options["region"]
    return f"pyarrow-{uri}", environment


def fetch_folder(folder: Folder, fingerprint: str, header_only: bool = False) -> str:
    """Return a local folder as it is. Copy an object store's folder to this machine, once for all processes.

    With `header_only` the copy lacks the values of the weights, which are nearly all of its bytes. It suffices to check
    a model, or to use its tokenizer, on a machine that does not run it.

    The cache key is `fingerprint` with the sizes and times of the files, so outdated copies are never used. Older
    copies of the folder are removed. So are copies of other folders, unused for twelve hours. Raises InputError if
    another user can write to the cache.
    """
    filesystem, path = resolve_filesystem(folder.uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return path
    # The cache is private: in a shared folder another user could plant a model.
    cache = create_private_folder(Path(tempfile.gettempdir()) / f"{_CACHE}-{os.getuid()}")
    copies = cache / _digest(folder.uri, *["header only"] * header_only)
    with open(cache / f"{copies.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copies.mkdir(exist_ok=True)  # under the lock, since others remove unused folders
        target = copies / _digest(fingerprint, *_contents(filesystem, path))
        if not target.exists():
            for older in copies.iterdir():
                shutil.rmtree(older)
            _remove_unused(cache)
            half = copies / "part"
            for name in folder.files():
                if name.endswith(_NOT_LOADED):
                    continue
                copy = folder.copy_header if header_only and name.endswith(".safetensors") else folder.copy_to
                copy(name, half / name)
            half.rename(target)
        os.utime(target)
    return str(target)


def _remove_unused(cache: Path) -> None:
    """Remove copies that were not used for `_UNUSED_S`, except those in the making."""
    for copies in [path for path in cache.iterdir() if path.is_dir()]:
        with open(cache / f"{copies.name}.lock", "w") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not copies.exists():  # another process removed it
                continue
            last_use = max((copy.stat().st_mtime for copy in copies.iterdir()), default=0.0)
            if time.time() - last_use > _UNUSED_S:
                shutil.rmtree(copies)


def stored_fingerprint(uri: str) -> str:
    """Return the fingerprint of a model's folder in an object store: names, sizes and times of its files.

    Raises InputError if there are none.
    """
    filesystem, path = resolve_filesystem(uri)
    with raise_if_unreachable(uri):
        files = _contents(filesystem, path)
    if not files:
        raise InputError("no files there", uri, "check the URI, or name a folder or a model on the hub.")
    return _digest(*files)


def _contents(filesystem: fs.FileSystem, path: str) -> list[str]:
    """Return name, size and time of each file."""
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(f"{info.path} {info.size} {info.mtime_ns}" for info in infos if info.type == fs.FileType.File)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
