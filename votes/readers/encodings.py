"""Decode the text of files: byte order marks, the configured encoding, and a guess for the message."""

from __future__ import annotations

import codecs
import io
from typing import IO, TYPE_CHECKING, Final

from core.errors import InputError

if TYPE_CHECKING:
    from core.filesystems import InputFile

SAMPLE_BYTES: Final = 1 << 18
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def open_text(
    file: InputFile, stream: IO[bytes], encoding: str | None, newline: str = ""
) -> tuple[io.TextIOWrapper, str]:
    """Return the text of a stream, and a sample of its beginning.

    Bytes that are no text of the encoding become lone surrogates, so that only their rows are rejected.

    Raises InputError if most of the sample's lines hold such bytes: the encoding is another one.
    """
    buffered = io.BufferedReader(stream, SAMPLE_BYTES)  # type: ignore[type-var]  # a file of pyarrow reads into buffers
    sample = buffered.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
    name = encoding or next((name for mark, name in _MARKS if sample.startswith(mark)), "utf-8")
    try:
        codecs.lookup(name)
    except LookupError:
        raise InputError(f"unknown encoding {name!r}", "data.encoding", "write for example cp1252.") from None
    text = (
        sample.decode(name, "surrogateescape")
        if not name.startswith(("utf-16", "utf-32"))
        else _decode_wide(sample, name)
    )
    lines = text.splitlines()[: -1 if len(sample) == SAMPLE_BYTES else None]
    broken = sum(any("\udc80" <= letter <= "\udcff" for letter in line) for line in lines)
    if not encoding and (2 * broken > len(lines) or "\x00" in text[:1000]):
        raise InputError(
            f"the text is not UTF-8; it looks like {_guess(sample)}",
            where=file.name,
            fix=f"set data.encoding, for example --set data.encoding={_guess(sample)}, or save the file as UTF-8.",
        )
    return io.TextIOWrapper(buffered, encoding=name, errors="surrogateescape", newline=newline), text


def _decode_wide(sample: bytes, name: str) -> str:
    return codecs.getincrementaldecoder(name)("replace").decode(sample)


def _guess(sample: bytes) -> str:
    """Return the most likely encoding of a sample."""
    from charset_normalizer import from_bytes

    zeros = sample[:1000].count(0)
    if zeros > len(sample[:1000]) // 4:
        return "utf-16-le" if sample[1:2] == b"\0" else "utf-16-be"
    best = from_bytes(sample).best()
    if best is None:
        return "cp1252"
    try:  # where several fit alike, the one that Windows writes in the west
        alike = str(best) == sample.decode("cp1252")
    except UnicodeDecodeError:
        alike = False
    return "cp1252" if alike else best.encoding
