"""File systems of input and output: local paths and URIs of object stores."""

import contextlib
import fnmatch
import functools
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

from pyarrow import fs

from core.errors import InputError

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")
_WILDCARD = re.compile(r"[*?\[]")
_KEY = re.compile(r"key|secret|token|passw|credential|sig", re.IGNORECASE)
# Pauses double up to 20 s, with random jitter. They last 90 s on average, so a job survives an outage of 30 s.
REQUEST_ATTEMPTS = 12


def resolve_filesystem(location: str, attempts: int = REQUEST_ATTEMPTS) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path inside it, for a local path or a URI such as s3://bucket/key.

    Local paths are made absolute. `attempts` is the number of tries of a request to S3.
    """
    if not _SCHEME.match(location):
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(location))
    return _remote(location, attempts)


def reject_credentials(location: str, where: str = "") -> None:
    """Raise InputError for a URI that holds a key. The message names `where`, and only the URI's scheme.

    Settings are printed, saved in the run and shown in the report.
    """
    scheme, mark, rest = location.partition("://")
    if not mark:
        return
    place, _, options = rest.partition("?")
    # A secret may hold a slash, which ends what a parser takes for the host: s3://name:half/other-half@bucket
    host, _, port = place.partition("/")[0].partition(":")
    named = [name for name in urllib.parse.parse_qs(options, keep_blank_values=True) if _KEY.search(name)]
    if scheme == "gs":
        host = host.removeprefix("anonymous@")  # pyarrow's syntax for access without a key
    if "@" in host + options or (port and (not port.isdigit() or scheme.lower() in ("s3", "gs"))) or named:
        raise InputError(
            "the URI contains a key",
            where=where or f"{scheme}://...",
            fix="leave it out; give it in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or through the machine's role.",
        )


@functools.lru_cache(maxsize=256)  # cached file systems keep their connections
def _remote(location: str, attempts: int) -> tuple[fs.FileSystem, str]:
    reject_credentials(location)
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (ValueError, OSError) as error:
        place = location.partition("?")[0]
        reason = str(error).replace(location, place)
        fix = "give a local path or an s3:// or gs:// URI."
        if isinstance(error, OSError) and location.startswith("s3://"):  # pyarrow asks for the bucket's region
            fix = "check the bucket's name and the network, or add the region: s3://BUCKET/PATH?region=REGION."
        raise InputError(reason, where=place, fix=fix) from error
    if isinstance(filesystem, fs.S3FileSystem):
        # A URI has no option for retries. Pickle keeps a file system's constructor arguments, so change those.
        _, (options,) = filesystem.__reduce__()
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=attempts)
        filesystem = fs.S3FileSystem(**{**options, "retry_strategy": retries})
    return filesystem, path


@contextlib.contextmanager
def raise_if_unreachable(location: str) -> Iterator[None]:
    """Turn the OSError of an unreachable location into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot be reached: {str(error).splitlines()[0]}",
            where=location,
            fix="check the path and your permissions.",
        ) from error


@dataclass(frozen=True)
class InputFile:
    """One input file: the location given, its path in the file system, and its name in messages."""

    location: str
    path: str
    name: str
    size: int

    @property
    def filesystem(self) -> fs.FileSystem:
        """Its file system: resolved where it is used, since pickle would lose its retry strategy."""
        return resolve_filesystem(self.location)[0]


def list_input_files(location: str, endings: tuple[str, ...]) -> list[InputFile]:
    """Return the files of a path or URI. It names a file, a folder (its files that end in `endings`), or a glob.

    Files are ordered by name, so record positions do not depend on the file system. Raises InputError if no file
    matches.
    """
    wildcard = _WILDCARD.search(location)
    # An existing file wins over a glob, so that names with brackets can be given as they are.
    filesystem, path = resolve_filesystem(location)
    with raise_if_unreachable(location):
        info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return [InputFile(location, path, location, info.size)]
    if info.type == fs.FileType.Directory:
        below = _below(filesystem, path)
        files = [file for file in below if file.path.lower().endswith(endings)]
        if not files:
            raise InputError(
                "no input file in this folder",
                where=location,
                fix=f"add files that end in one of {', '.join(endings)}.",
            )
        return [InputFile(location, file.path, file.path, file.size) for file in files]
    if wildcard:
        _, base = resolve_filesystem(
            location[: wildcard.start()].rpartition("/")[0] or ("." if "/" not in location else "/")
        )
        files = [file for file in _below(filesystem, base) if _matches(file.path, path)]
        if files:
            return [InputFile(location, file.path, file.path, file.size) for file in files]
        raise InputError("no file matches this pattern", where=location, fix="check the pattern and the folder.")
    raise InputError("no such file or folder", where=location, fix="check the path; relative ones start where you run.")


def _matches(path: str, pattern: str) -> bool:
    """Return whether each part of the path matches its part of the pattern; * does not cross folders."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _below(filesystem: fs.FileSystem, folder: str) -> list[fs.FileInfo]:
    """Return the files below a folder, ordered by name, without hidden files and folders."""
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    files = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    seen = [file for file in files if "/." not in file.path[len(folder) :]]
    return sorted(seen, key=lambda info: info.path)
