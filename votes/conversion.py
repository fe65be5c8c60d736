"""Write the records of a run in another tool's shape, shard by shard."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import InputError
from core.filesystems import raise_if_unreachable, resolve_filesystem
from core.progress import Progress
from core.registry import EXPORTS
from votes.export import ExportedRecord, NotHeldError

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Doubles, Probabilities
    from core.settings.convert import Convert
    from votes.export import VoteExport
    from votes.records import Records

_COLUMNS = ("id", "prompt", "response_a", "response_b", "votes", "model_a", "model_b", "language")


def convert_records(records: Records, settings: Convert, predicted: Probabilities | None) -> dict[str, Any]:
    """Write the training records to settings.output. Return the rows written, and why others are left out.

    `predicted` (n, k) are the out-of-fold probabilities of the run, for margins. Raises InputError if the place cannot
    be written.
    """
    if settings.to is None or settings.output is None:
        raise InputError("no shape to convert to", "convert.to", "give --set convert.to=trl convert.output=FILE.")
    started = time.monotonic()
    export: VoteExport = EXPORTS.get(settings.to)
    left_out: collections.Counter[str] = collections.Counter()
    written = collections.Counter({"records": 0, "rows": 0})

    def rows() -> Iterator[Mapping[str, Any]]:
        for record in _exported(records, predicted):
            if record.margin is not None and abs(record.margin) < settings.min_margin:
                left_out[f"a margin below {settings.min_margin:g}"] += 1
                continue
            try:
                of_record = list(export.rows(record))
            except NotHeldError as error:
                left_out[str(error)] += 1
                continue
            written["records"] += 1
            written["rows"] += len(of_record)
            yield from of_record

    _write(settings.output, export.encode(rows()))
    return {
        "stage": "convert",
        "rows": {"train": written["records"], "written": written["rows"]},
        "metrics": {"left_out": dict(left_out.most_common())},
        "seconds": round(time.monotonic() - started, 3),
    }


def _exported(records: Records, predicted: Probabilities | None) -> Iterator[ExportedRecord]:
    """Yield the training records. One shard is in memory at a time."""
    margins: Doubles | None = None if predicted is None else np.log(predicted[:, 0] / predicted[:, 1])
    progress = Progress("convert", "records", total=records.rows("train"))
    position = 0
    for shard in records.shards("train"):
        ballots = _ballots(records, shard)
        for row in records.folder.read_table(shard, list(_COLUMNS)).to_pylist():
            margin = None if margins is None else float(margins[position])
            yield ExportedRecord(**row, ballots=ballots.get(row["id"], ()), margin=margin)
            position += 1
        progress.advance(records.shard_rows(shard))


def _ballots(records: Records, shard: str) -> dict[str, list[dict[str, Any]]]:
    """Return the votes of known voters on a shard's records, by id."""
    name = f"voters/{shard}"
    by_id: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    if records.folder.exists(name):
        table: pa.Table = records.folder.read_table(name)
        for ballot in table.to_pylist():
            by_id[ballot["id"]].append(ballot)
    return by_id


def _write(output: str, parts: Iterator[bytes]) -> None:
    """Write a file under its name only once it is whole."""
    filesystem, path = resolve_filesystem(output)
    is_local = "://" not in output
    with raise_if_unreachable(output):
        if is_local:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        place = f"{path}.part" if is_local else path  # an object appears when its upload is complete
        with filesystem.open_output_stream(place, compression=None) as stream:
            for part in parts:
                stream.write(part)
        if is_local:
            os.replace(place, path)
