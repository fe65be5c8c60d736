"""Folders of a run, local or in an object store. Writes are atomic."""

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from core.errors import InputError
from core.filesystems import resolve_filesystem

FINGERPRINT_KEY = b"tiebreak.fingerprint"
Parsed = TypeVar("Parsed")
_PIECE = 1 << 24  # bytes
_HEADER = 100_000_000  # bytes of a safetensors file's header at most, as its own library has it
_CONCURRENT_REQUESTS = 32
_FIRST_ATTEMPTS = 3  # of the first request: a store that never replied is no brief outage


class CorruptFileError(InputError):
    """A file of a run differs from what was written; `where` is the file."""


def _upload(filesystem: fs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    """Write an object in a thread. A signal to the main thread must not commit half an upload."""
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with filesystem.open_output_stream(path) as stream:
                stream.write(data)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write, name="upload")
    thread.start()
    try:
        thread.join()
    except BaseException:
        thread.join()  # the upload must not finish later, when another job holds the run
        raise
    if failed:
        raise failed[0]


def schema_fingerprint(schema: pa.Schema) -> str | None:
    """Return the fingerprint in a table's schema, or None."""
    value = (schema.metadata or {}).get(FINGERPRINT_KEY)
    return value.decode() if value else None


@dataclass(frozen=True)
class Folder:
    """A folder by its path or URI. It is cheap to create, to send to other processes, and to extend with `/`."""

    uri: str

    def __truediv__(self, name: str) -> "Folder":
        # A URI may end in options, such as s3://bucket/run?region=eu-west-1.
        place, mark, options = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return Folder(f"{place.rstrip('/')}/{name}{mark}{options}")

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

    def _open(self, name: str) -> tuple[fs.FileSystem, str]:
        # Names may come from a manifest of another user.
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(
                f"the name {name!r} is outside the folder", str(self), "do not use the file that names it."
            )
        filesystem, path = resolve_filesystem(self.uri)
        return filesystem, f"{path}/{name}"

    def refuse_unwritable(self) -> None:
        """Raise OSError if nothing can be written here."""
        filesystem, path = resolve_filesystem(self.uri, _FIRST_ATTEMPTS)
        if not isinstance(filesystem, fs.LocalFileSystem):
            probe = f"{path}/.probe-{uuid.uuid4().hex}"
            with filesystem.open_output_stream(probe) as stream:
                stream.write(b"")
            filesystem.delete_file(probe)
            return
        parent = path
        while (info := filesystem.get_file_info(parent)).type == fs.FileType.NotFound:
            parent = os.path.dirname(parent)
        if info.type != fs.FileType.Directory:
            raise NotADirectoryError(f"{parent} is not a folder")
        if not os.access(parent, os.W_OK):
            raise PermissionError(f"{parent} is not writable")
        # Only creating the folder shows that it can be created. Remove it again: a refused job must leave no folder.
        self.unmake(self.make())

    def make(self) -> list[str]:
        """Create a local folder and its parents; return those that were absent, innermost first."""
        filesystem, path = resolve_filesystem(self.uri)
        missing: list[str] = []
        while isinstance(filesystem, fs.LocalFileSystem) and not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            os.makedirs(folder, exist_ok=True)
        return missing

    @staticmethod
    def unmake(folders: list[str]) -> None:
        """Remove the empty ones of these local folders, innermost first."""
        for folder in folders:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def exists(self, name: str) -> bool:
        """Return whether the folder holds a file of this name."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, or None if it is absent."""
        filesystem, path = self._open(name)
        info = filesystem.get_file_info(path)
        return int(info.size) if info.type == fs.FileType.File else None

    def files(self) -> dict[str, int]:
        """Return the bytes of every file below the folder, by its relative path."""
        filesystem, path = resolve_filesystem(self.uri)
        selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
        infos = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        return {info.path[len(path) + 1 :]: int(info.size) for info in sorted(infos, key=lambda info: info.path)}

    def changed(self) -> dict[str, float]:
        """Return when each direct file was last written, in seconds by the clock of the storage."""
        filesystem, path = resolve_filesystem(self.uri)
        infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return {info.base_name: info.mtime_ns / 1e9 for info in infos if info.type == fs.FileType.File}

    def read_bytes(self, name: str) -> bytes:
        """Return the contents of a file. Raises FileNotFoundError."""
        filesystem, path = self._open(name)
        with filesystem.open_input_stream(path) as stream:
            return bytes(stream.read())

    def write_bytes(self, name: str, data: bytes | pa.Buffer) -> None:
        """Write a file so that readers see the old one or the new one, never a part.

        A local file is renamed into place; an object store shows an object only once its upload is complete.
        """
        filesystem, path = self._open(name)
        if not isinstance(filesystem, fs.LocalFileSystem):
            _upload(filesystem, path, data)
            return
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.writing-{uuid.uuid4().hex}"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def copy_to(self, name: str, path: str | os.PathLike[str]) -> None:
        """Copy a file to a local path, piece by piece, making its folders. Raises FileNotFoundError."""
        filesystem, source = self._open(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with filesystem.open_input_stream(source) as stream, open(path, "wb") as file:
            while piece := stream.read(_PIECE):
                file.write(piece)

    def copy_header(self, name: str, path: str | os.PathLike[str]) -> None:
        """Copy the header of a safetensors file to a local path; its tensors become a hole that takes no disk."""
        filesystem, source = self._open(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with filesystem.open_input_file(source) as stream, open(path, "wb") as file:
            length = stream.read(8)
            file.write(length + stream.read(min(int.from_bytes(length, "little"), _HEADER)))
            file.truncate(stream.size())

    def write_file(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write a copy of a local file of any size, as `write_bytes` writes bytes."""
        with pa.memory_map(os.fspath(path)) as source:
            self.write_bytes(name, source.read_buffer())

    def read_json(self, name: str) -> Any:  # noqa: ANN401 - JSON holds anything
        """Return the parsed JSON file. Raises FileNotFoundError or ValueError."""
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: object) -> None:
        """Write `value` as indented JSON, atomically. Raises ValueError for nan and infinity."""
        self.write_bytes(name, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return one Parquet file as a table, or only the named columns.

        Raises FileNotFoundError, and CorruptFileError if a checksum does not match.
        """

        def read(file: pa.NativeFile) -> pa.Table:
            return pq.read_table(file, columns=columns, page_checksum_verification=True)

        return self._parse(name, read)

    def _parse(self, name: str, read: Callable[[pa.NativeFile], Parsed]) -> Parsed:
        filesystem, path = self._open(name)
        try:
            with filesystem.open_input_file(path) as file:
                return read(file)
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError):
            # Arrow reports errors of network and file alike: an error that persists in memory is the file's.
            content = pa.BufferReader(self.read_bytes(name))
            try:
                return read(content)
            except (pa.ArrowInvalid, OSError) as error:
                raise CorruptFileError(
                    f"corrupt: {str(error).splitlines()[0]}",
                    where=str(self / name),
                    fix="delete it and run the job that wrote it, or `tiebreak pipeline`.",
                ) from error

    def write_table(self, name: str, table: pa.Table, fingerprint: str = "") -> None:
        """Write a Parquet file atomically, with the fingerprint of its stage in the schema's metadata."""
        metadata: Mapping[bytes, bytes] = {FINGERPRINT_KEY: fingerprint.encode()} if fingerprint else {}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", write_page_checksum=True)
        self.write_bytes(name, sink.getvalue())

    def table_fingerprint(self, name: str) -> str | None:
        """Return the fingerprint in a Parquet file; None if the file is absent, corrupt or has none."""
        try:
            return schema_fingerprint(self._parse(name, pq.read_schema))
        except (FileNotFoundError, CorruptFileError):
            return None

    def table_fingerprints(self, names: Sequence[str]) -> list[str | None]:
        """Return the fingerprints of many files, read concurrently: each read of an object store is slow."""
        with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as threads:
            return list(threads.map(self.table_fingerprint, names))

    def delete(self, name: str) -> None:
        """Remove one file; do nothing if it is absent."""
        filesystem, path = self._open(name)
        if filesystem.get_file_info(path).type == fs.FileType.File:
            filesystem.delete_file(path)

    def delete_inside(self, uri: str) -> None:
        """Remove one file by its whole path or URI. Raises ValueError if it does not lie in the folder."""
        base, file = (place.partition("?")[0] if "://" in place else place for place in (self.uri, uri))
        if not file.startswith(f"{base.rstrip('/')}/") or "/../" in file:
            raise ValueError(f"{uri} is not in {self.uri}")
        self.delete(file[len(base.rstrip("/")) + 1 :])

    def delete_all(self) -> None:
        """Remove the folder and everything below it."""
        filesystem, path = resolve_filesystem(self.uri)
        if filesystem.get_file_info(path).type == fs.FileType.Directory:
            filesystem.delete_dir(path)
