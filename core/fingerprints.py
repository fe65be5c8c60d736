"""Identify the model behind a name, for the fingerprints of its outputs."""

import hashlib
import importlib.metadata
import os

_CHUNK = 1 << 20


def model_identity(location: str, package: str | None = None) -> str:
    """Return the version of an installed package, else the digest of a folder's files, else the hub id itself.

    Folders with the same files are the same model. A folder with one changed file is another model.
    """
    if package is not None:
        return f"{package}=={importlib.metadata.version(package)}"
    if not os.path.isdir(location):
        return location
    digest = hashlib.blake2b(digest_size=16)
    for folder, folders, names in os.walk(location):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            digest.update(f"{os.path.relpath(path, location)}\0{os.path.getsize(path)}\0".encode())
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()
