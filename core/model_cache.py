"""Model folders of a run as folders on this machine, which is what transformers and vLLM load."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs

from pyarrow import fs

from core.errors import InputError
from core.filesystems import resolve, unreachable_is_input_error
from core.private_dir import private_folder
from core.storage import Folder

_CACHE = "tiebreak-models"
# The same weights in other formats, of which none is ever read; a hub's folder may hold several.
_NOT_LOADED = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".gguf", ".onnx")
_UNUSED_S = 12 * 3600  # after which a copy makes room for a new one: what works with it has loaded it long before


def engine_source(place: str) -> tuple[str, dict[str, str]]:
    """A model's place as ray.data.llm takes it, and the environment that its engines need to reach it.

    Engines start on whatever machine has room, so each fetches a model from an object store itself: through pyarrow,
    as we do, for which ray.data.llm has a prefix. It takes a URI's options from the environment.
    """
    if "://" not in place:
        return place, {}
    uri, _, query = place.partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    environment = {}
    if "endpoint_override" in options:
        endpoint = options["endpoint_override"]
        with_scheme = endpoint if "://" in endpoint else f"{options.get('scheme', 'https')}://{endpoint}"
        environment["AWS_ENDPOINT_URL_S3"] = with_scheme
    if "region" in options:
        environment["AWS_DEFAULT_REGION"] = options["region"]
    return f"pyarrow-{uri}", environment


def local_place(place: str, fingerprint: str, outline: bool = False) -> str:
    """A hub id or a local folder as it is; what is in an object store is copied to this machine, if it is not yet."""
    return local_folder(Folder(place), fingerprint, outline) if "://" in place else place


def local_folder(folder: Folder, fingerprint: str, outline: bool = False) -> str:
    """The folder itself if it is on a file system, else a copy of it on this machine, made once for all processes.

    With `outline` the copy has all but the numbers of the weights, which are nearly all of it: enough to check a model,
    or to use its tokenizer, on a machine that does not run it.
    `fingerprint` tells what was asked for, the files' sizes and times what is there, so that a copy of something older
    is never taken for it. Older copies of the folder are removed, and those of other folders that nobody asked for in
    twelve hours. Raises InputError where another user may have put something into the place of the copies.
    """
    filesystem, path = resolve(folder.uri)
    if isinstance(filesystem, fs.LocalFileSystem):
        return path
    # The user's own, since others could put a model of theirs into a place that everybody may write.
    cache = private_folder(Path(tempfile.gettempdir()) / f"{_CACHE}-{os.getuid()}")
    copies = cache / _digest(folder.uri, *["outline"] * outline)
    with open(cache / f"{copies.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copies.mkdir(exist_ok=True)  # under the lock, since others remove what nobody asked for
        target = copies / _digest(fingerprint, *_contents(filesystem, path))
        if not target.exists():
            for older in copies.iterdir():
                shutil.rmtree(older)
            _drop_unused(cache)
            half = copies / "part"
            for name in folder.files():
                if name.endswith(_NOT_LOADED):
                    continue
                copy = folder.copy_outline if outline and name.endswith(".safetensors") else folder.copy_to
                copy(name, half / name)
            half.rename(target)
        os.utime(target)
    return str(target)


def _drop_unused(cache: Path) -> None:
    """Remove copies that nobody has asked for in a while, but for those that are being made."""
    for copies in [path for path in cache.iterdir() if path.is_dir()]:
        with open(cache / f"{copies.name}.lock", "w") as lock, contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not copies.exists():  # another process was here
                continue
            asked = max((each.stat().st_mtime for each in copies.iterdir()), default=0.0)
            if time.time() - asked > _UNUSED_S:
                shutil.rmtree(copies)


def stored_fingerprint(uri: str) -> str:
    """What a model's folder in an object store is: names, sizes and times of change of its files.

    Raises InputError if there are none.
    """
    filesystem, path = resolve(uri)
    with unreachable_is_input_error(uri):
        files = _contents(filesystem, path)
    if not files:
        raise InputError("no files there", uri, "check the URI, or name a folder or a model on the hub.")
    return _digest(*files)


def _contents(filesystem: fs.FileSystem, path: str) -> list[str]:
    """Name, size and time of each file."""
    infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(f"{info.path} {info.size} {info.mtime_ns}" for info in infos if info.type == fs.FileType.File)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
