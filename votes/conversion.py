"""Read votes for their conversion, and write them in another tool's shape, shard by shard."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pyarrow import fs

from core.errors import InputError
from core.filesystems import raise_if_unreachable, resolve_filesystem
from core.progress import Progress
from core.registry import EXPORTS
from core.run import Run, StageResult
from core.settings.data import Voters
from votes.ballots import written_count
from votes.comparison import OUTCOMES
from votes.export import ExportedRecord, NotHeldError
from votes.ingest import file_digests, find_vote_files, ingest_files, records_stage
from votes.records import Records, open_records

if TYPE_CHECKING:
    import pyarrow as pa

    from core.arrays import Doubles, Probabilities
    from core.settings.convert import Convert
    from votes.export import VoteExport
    from votes.recognition import VoteFile

_COLUMNS = ("id", "prompt", "response_a", "response_b", "votes", "model_a", "model_b", "language")


def read_votes(run: Run, location: str) -> tuple[StageResult, Records]:
    """Read the votes at a location into records of their own, in convert/ of the run.

    They have no folds, so one prompt is enough; all outcomes; and all votes count alike.
    """
    settings = run.settings
    if settings.data.others:
        raise InputError(
            "data.train lists several sources, and they are converted one at a time",
            where="data.train",
            fix="name one file, folder or glob: --set data.train=FILE.",
        )
    changes = {"folds": 0, "outcomes": list(OUTCOMES), "weights": "per_vote", "voters": Voters()}
    data = settings.data.model_copy(update=changes)
    place = (run.folder / "convert").uri
    own = dataclasses.replace(run, settings=settings.model_copy(update={"run": place, "data": data}))
    files = find_vote_files(own, location, "train")
    _refuse_overwriting(files, settings.convert)
    stage = records_stage(own, file_digests("train", files))
    result = ingest_files(own, stage, {"train": location}, {"train": files})
    return result, open_records(own)


def refuse_other_votes(run: Run, records: Records) -> None:
    """Raise InputError unless the records of a run are the votes of the settings, each of them counted once."""
    data = run.settings.data
    if data.primary is not None:
        files = find_vote_files(run, data.primary, "train")
        _refuse_overwriting(files, run.settings.convert)
        digests = file_digests("train", files)
        if sorted({*digests.values()}) != records.vote_files:
            raise InputError(
                f"the run was made from other votes than {data.primary}, so it has no margins for these",
                where="data.train",
                fix="name the run's own votes, or make a run of these first.",
            )
    if data.weights != "per_vote":
        raise InputError(
            f"the run counts votes by data.weights={data.weights}, and a shape can only hold votes",
            where="convert.margins",
            fix="make a run with data.weights=per_vote, or convert without margins.",
        )


def convert_records(records: Records, settings: Convert, predicted: Probabilities | None) -> StageResult:
    """Write the training records to settings.output. The result counts what is left out, with the reasons.

    `predicted` (n, k) are the out-of-fold probabilities of the run, for margins. Raises InputError if the place cannot
    be written.
    """
    shape, output = _shape(settings)
    started = time.monotonic()
    export: VoteExport = EXPORTS.get(shape)
    left_out: collections.Counter[str] = collections.Counter()
    written = collections.Counter({"records": 0, "rows": 0})
    dropped = {"votes": 0.0, "voters": 0}
    both_bad = 0.0

    def rows() -> Iterator[Mapping[str, Any]]:
        nonlocal both_bad
        for record in _exported(records, export, predicted):
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
            both_bad += record.both_bad_as_tie
            if export.one_winner:
                dropped["votes"] += sum(record.votes) - max(record.votes)
                dropped["voters"] += sum(ballot["voter"] is not None for ballot in record.ballots)
            yield from of_record
        if not written["records"]:
            counted = ", ".join(f"{count} x {reason}" for reason, count in left_out.most_common())
            raise InputError(f"no record can be written as {shape} ({counted})", "convert.to", "name another shape.")

    _write(output, export.encode(rows()))
    manifest = {
        "stage": "convert",
        "rows": {"train": written["records"], "written": written["rows"]},
        "metrics": {"left_out": dict(left_out.most_common()), "dropped": dropped},
        "seconds": round(time.monotonic() - started, 3),
    }
    notes = [f"{count} record{'s' * (count != 1)} left out: {reason}" for reason, count in left_out.most_common()]
    if both_bad:
        notes.append(f"{written_count(both_bad)} votes that both are bad are ties in {shape}")
    if dropped["votes"]:
        notes.append(f"{written_count(dropped['votes'])} votes against their pair's winner are not in {shape}")
    if dropped["voters"]:
        notes.append(f"the voters of {dropped['voters']:,} votes are not in {shape}")
    return StageResult("convert", False, manifest, [*notes, f"written: {output}"])


def _refuse_overwriting(files: Sequence[VoteFile], settings: Convert) -> None:
    output = resolve_filesystem(_shape(settings)[1])
    if any((file.file.filesystem, file.file.path) == output for file in files):
        raise InputError("the output is one of the files to read", "convert.output", "name another file.")


def _shape(settings: Convert) -> tuple[str, str]:
    """Return the shape's name and the place to write to."""
    if settings.to is None or settings.output is None:
        raise InputError("no shape to convert to", "convert.to", "give --set convert.to=trl convert.output=FILE.")
    export: VoteExport = EXPORTS.get(settings.to)
    if not settings.output.lower().endswith(export.ending):
        raise InputError(
            f"{settings.to} is written as {export.ending}, not as {settings.output!r}",
            where="convert.output",
            fix=f"name a file that ends in {export.ending}.",
        )
    if settings.margins and not export.has_margin:
        raise InputError(
            f"{settings.to} has no place for a margin", "convert.margins", "convert to trl, or leave it out."
        )
    return settings.to, settings.output


def _exported(records: Records, export: VoteExport, predicted: Probabilities | None) -> Iterator[ExportedRecord]:
    """Yield the training records. One shard is in memory at a time."""
    classes = len(export.outcomes)
    margins: Doubles | None = None if predicted is None else np.log(predicted[:, 0] / predicted[:, 1])
    progress = Progress("convert", "records", total=records.rows("train"))
    position = 0
    for shard in records.shards("train"):
        ballots = _ballots(records, shard)
        for row in records.folder.read_table(shard, list(_COLUMNS)).to_pylist():
            margin = None if margins is None else float(margins[position])
            row["both_bad_as_tie"] = sum(row["votes"][classes:])
            row["votes"] = _merged(row["votes"], classes)
            of_people = [ballot | {"votes": _merged(ballot["votes"], classes)} for ballot in ballots.get(row["id"], ())]
            yield ExportedRecord(**row, ballots=of_people, margin=margin)
            position += 1
        progress.advance(records.shard_rows(shard))


def _merged(votes: list[float], classes: int) -> list[float]:
    """Return votes by the first outcomes, of which the last one, a tie, takes in what comes after it."""
    return votes if len(votes) <= classes else [*votes[: classes - 1], sum(votes[classes - 1 :])]


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
    """Write a file. On a disk it has its name only once it is whole."""
    filesystem, path = resolve_filesystem(output)
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    with raise_if_unreachable(output):
        if is_local:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        place = f"{path}.part" if is_local else path
        try:
            with filesystem.open_output_stream(place, compression=None) as stream:
                for part in parts:
                    stream.write(part)
        except BaseException:
            if is_local:
                with contextlib.suppress(OSError):
                    os.remove(place)
            raise
        if is_local:
            os.replace(place, path)
