"""Which model a name stands for: what must be part of the fingerprint of features that a model makes."""

import hashlib
import importlib.metadata
import os

_CHUNK = 1 << 20


def identity(place: str, package: str | None = None) -> str:
    """The version of an installed package, else the digest of a folder's files, else the name of a hub's model.

    Two folders with the same files are the same model; one whose files were exchanged is another.
    """
    if package is not None:
        return f"{package}=={importlib.metadata.version(package)}"
    if not os.path.isdir(place):
        return place
    digest = hashlib.blake2b(digest_size=16)
    for folder, folders, names in os.walk(place):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            digest.update(f"{os.path.relpath(path, place)}\0{os.path.getsize(path)}\0".encode())
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()
