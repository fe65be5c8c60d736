"""Identify models and tables, for the fingerprints of what depends on them."""

import hashlib
import importlib.metadata
import os

import pyarrow as pa

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


def table_digest(table: pa.Table) -> str:
    """Return a digest of a table's columns and values, in their order."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()
