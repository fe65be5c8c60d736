"""Turn input files into records: validate rows, quarantine bad ones, divide the training records into folds.

There are two passes, so that no process needs all texts in memory. The first reads files into staged shards. Then ids,
votes and hashes of texts suffice to join the votes on one pair and compute folds. The second pass adds position, fold
and votes, shard by shard.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core import logs
from core.errors import InputError
from core.filesystems import InputFile, list_input_files, raise_if_unreachable
from core.progress import Progress
from core.ray_session import connect
from core.registry import FORMATS
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage
from votes.ballots import written_count
from votes.plan import PlanRequest, ballots_name, plan_records, planned_name
from votes.readers.files import ENDINGS
from votes.recognition import VoteFile, more_frequent_kind, recognize_file
from votes.record_reader import read_records
from votes.records import record_settings
from votes.schema import RARE_VOTES, TEST_RECORDS, TRAIN_RECORDS

if TYPE_CHECKING:
    from core.storage import Folder


def records_stage(run: Run, digests: Mapping[str, str]) -> Stage:
    """Return the stage of records/, built from files with these digests, by names such as train/0."""
    return Stage("ingest", run.folder / "records", settings=record_settings(run), inputs=digests)


def find_vote_files(run: Run, location: str, split: str) -> list[VoteFile]:
    """Return the files of a split with their formats. Raises InputError for an unknown format, before Ray starts."""
    files = list_input_files(location, ENDINGS)
    recognized = [recognize_file(file, run.settings.data, labeled=split != "test") for file in files]
    if len(recognized) == 1:
        return recognized
    return [dataclasses.replace(file, row_prefix=f"{n}-") for n, file in enumerate(recognized, start=1)]


def file_digests(split: str, files: Sequence[VoteFile]) -> dict[str, str]:
    """Return digests of the contents of a split's files, by names such as train/0."""
    return {f"{split}/{n}": file_digest(file.file) for n, file in enumerate(files)}


def ingest_files(
    run: Run,
    stage: Stage,
    sources: Mapping[str, str],
    files: Mapping[str, list[VoteFile]],
    outcomes: Sequence[str] | None = None,
) -> StageResult:
    """Build the records of the splits in `sources` (their locations) from their files, unless they are built.

    `outcomes` are those of a finished run, for new pairs without votes. Else they follow from votes and settings.
    """
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult("ingest", True, manifest, _notes(stage, manifest))
    _log_formats(files)
    connect(run)
    staged = run.folder / ".work/ingest"
    staged.delete_all()
    try:
        manifest = _ingest(run, stage, staged, sources, files, outcomes)
    finally:
        staged.delete_all()
    return StageResult("ingest", False, manifest, _notes(stage, manifest))


def file_digest(file: InputFile) -> str:
    """Return a digest of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with (
        raise_if_unreachable(file.name),
        file.filesystem.open_input_stream(file.path, compression=None) as stream,
    ):
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _log_formats(files: Mapping[str, list[VoteFile]]) -> None:
    for split, formats in _formats(files).items():
        logs.info("ingest", f"{split}: format {', '.join(formats)}")
        drawn = [name for name in formats if name in FORMATS.names() and FORMATS.get(name).ranked]
        if drawn:
            logs.info(
                "ingest", f"{', '.join(drawn)} names the better answer first: A and B are drawn by a hash of the texts"
            )


def _formats(files: Mapping[str, list[VoteFile]]) -> dict[str, list[str]]:
    """Return the names of the formats of each split."""
    return {split: sorted({file.format for file in of_split}) for split, of_split in files.items()}


def _ingest(
    run: Run,
    stage: Stage,
    staged: Folder,
    sources: Mapping[str, str],
    files: Mapping[str, list[VoteFile]],
    outcomes: Sequence[str] | None,
) -> dict[str, Any]:
    data = run.settings.data
    parts = _read_files(staged, files, data.shard_rows)
    for split, location in sources.items():
        refuse_empty(location, [part for part in parts if part["split"] == split])

    import ray

    plan = ray.remote(num_cpus=1)(plan_records)
    shards: list[Item] = []
    metrics: dict[str, Any] = {"format": _formats(files)}
    if outcomes is not None:
        metrics["outcomes"] = list(outcomes)
    names = {split: [part["name"] for part in parts if part["split"] == split and part["rows"]] for split in sources}
    for split in sources:  # train before other sources, whose folds follow from its own
        reliability = data.voters.model == "reliability"
        request = PlanRequest(
            split,
            names,
            data.folds,
            run.settings.seed,
            sources[split],
            data.outcomes or metrics.get("outcomes"),
            data.weights,
            reliability,
            _quarantined(parts, split),
        )
        planned = ray.get(plan.remote(staged, request))
        shards += planned["shards"]
        attachments = metrics.get("attachments", 0) + planned["metrics"].get("attachments", 0)
        metrics |= {**planned["metrics"], "attachments": attachments}

    # Only now is the input known to be good: the output of an earlier run stays complete until here.
    stage.begin()
    write = functools.partial(write_records, staged=staged, target=stage.folder, fingerprint=stage.fingerprint)
    rejected = [part for part in parts if part["quarantined"]]
    written: set[str] = set()
    shard_rows = {}
    for row in map_shards(shards, write):
        written |= {row["file"], *filter(None, [row["voters"]])}
        shard_rows[row["file"]] = row["rows"]
    for number, part in enumerate(rejected):
        name = f"quarantine/part-{number:05d}.parquet"
        stage.folder.write_table(name, staged.read_table(_rejected(part["name"])), stage.fingerprint)
        written.add(name)
    reasons: collections.Counter[str] = collections.Counter()
    for part in rejected:
        reasons.update(json.loads(part["reasons"]))
    rows = {split: sum(shard["rows"] for shard in shards if shard["split"] == split) for split in sources}
    left_out = {split: sum(part["quarantined"] for part in rejected if part["split"] == split) for split in sources}
    return stage.commit(
        rows={**rows, "quarantine": reasons.total()},
        schema={field.name: str(field.type) for field in TRAIN_RECORDS},
        metrics={"quarantine": dict(reasons.most_common()), "quarantined": left_out, **metrics},
        keep=written,
        extra={"shards": dict(sorted(shard_rows.items()))},
    )


def _read_files(staged: Folder, files: Mapping[str, list[VoteFile]], shard_rows: int) -> list[Item]:
    """Read all files into staged shards; return the parts in order. Raises InputError if one cannot be read."""
    progress = Progress("ingest", "files", total=sum(map(len, files.values())))

    def read(items: list[Item], files: Mapping[str, list[VoteFile]]) -> Iterator[Item]:
        work = functools.partial(read_file, staged=staged, files=files, shard_rows=shard_rows)
        for part in map_shards(items, work):
            if part["error"]:
                raise InputError(*json.loads(part["error"]))
            yield part
            progress.add_rows(part["rows"])
            if part["last"]:
                progress.advance()

    return read_again_where_kinds_differ(files, read)


def read_again_where_kinds_differ(
    files: Mapping[str, list[VoteFile]], read: Callable[[list[Item], Mapping[str, list[VoteFile]]], Iterable[Item]]
) -> list[Item]:
    """Return the parts of all files, in order, as `read` gives them.

    A file's kind of texts is guessed from its first rows. Where most rows are of the other kind, it is read again.
    """
    items: list[Item] = [{"split": split, "file": n} for split in files for n in range(len(files[split]))]
    parts = list(read(items, files))
    kinds: dict[tuple[str, int], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for part in parts:
        kinds[part["split"], part["file"]].update({"lists": part["lists"], "plain": part["plain"]})
    others: dict[str, list[VoteFile]] = {split: list(some) for split, some in files.items()}
    again: set[tuple[str, int]] = set()
    for (split, number), counts in kinds.items():
        file = others[split][number]
        kind = more_frequent_kind(counts)
        if file.decides_kind and counts.total() and kind != file.reading.kind:
            others[split][number] = dataclasses.replace(file, reading=dataclasses.replace(file.reading, kind=kind))
            again.add((split, number))
    if again:
        parts = [part for part in parts if (part["split"], part["file"]) not in again]
        parts += read([item for item in items if (item["split"], item["file"]) in again], others)
    return sorted(parts, key=lambda part: (part["split"], part["name"]))


def read_file(item: Item, staged: Folder, files: Mapping[str, list[VoteFile]], shard_rows: int) -> Iterator[Item]:
    """Read one file (first pass): stage a shard of records and one of rejected rows for every `shard_rows` rows."""
    split, file = item["split"], files[item["split"]][item["file"]]
    result = {
        **{"split": split, "file": item["file"], "name": "", "rows": 0, "quarantined": 0, "reasons": "{}", "error": ""},
        **{"lists": 0, "plain": 0, "last": True},
    }
    try:
        for number, part in enumerate(read_records(file, shard_rows)):
            name = f"{split}/file-{item['file']:05d}-{number:06d}.parquet"
            staged.write_table(name, part.records)
            reasons: list[str] = part.rejected["reason"].to_pylist()
            if reasons:
                staged.write_table(_rejected(name), part.rejected)
            yield result | {
                "name": name,
                "rows": len(part.records),
                "quarantined": len(reasons),
                "reasons": json.dumps(collections.Counter(map(_reason_class, reasons))),
                "lists": part.kinds.get("lists", 0),
                "plain": part.kinds.get("plain", 0),
                "last": False,
            }
    except InputError as error:
        # As a row, because Ray Data would wrap an exception until its parts are lost.
        yield result | {"error": json.dumps([error.reason, error.where, error.fix])}
        return
    yield result


def _rejected(name: str) -> str:
    return f"rejected/{name}"


def _reason_class(reason: str) -> str:
    """Return the reason without the location it names, so that rows of one kind are counted together."""
    return reason.partition(" near line")[0].partition(":")[0]


def _quarantined(parts: list[Item], split: str) -> str:
    """Return how many rows of a split are quarantined, and why, to be added to an error."""
    reasons: collections.Counter[str] = collections.Counter()
    for part in parts:
        if part["split"] == split:
            reasons.update(json.loads(part["reasons"]))
    return f" ({reasons.total()} rows are quarantined: {_listed(reasons)})" if reasons else ""


def _listed(reasons: collections.Counter[str]) -> str:
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))


def refuse_empty(location: str, parts: list[Item]) -> None:
    """Raise InputError with the most frequent reasons if no row of a split is valid."""
    if sum(part["rows"] for part in parts):
        return
    reasons: collections.Counter[str] = collections.Counter()
    for part in parts:
        reasons.update(json.loads(part["reasons"]))
    if not reasons:
        raise InputError("there is a header but no rows", where=location, fix="give a file with rows.")
    fix = "fix the rows and run again."
    if any(reason.startswith("unknown winner") for reason in reasons):
        fix = "say what the values mean with data.columns: {winner: {column: NAME, map: {VALUE: a, VALUE: b}}}."
    raise InputError(f"none of the {reasons.total()} rows is valid ({_listed(reasons)})", where=location, fix=fix)


def write_records(item: Item, staged: Folder, target: Folder, fingerprint: str) -> Iterator[Item]:
    """Write the final file of one shard (second pass): the first row of each pair, with position, fold and votes."""
    split = item["split"]
    table = staged.read_table(item["staged"])
    planned = staged.read_table(planned_name(item["staged"]))
    table = table.take(planned["row"]).drop_columns(
        [name for name in planned.column_names if name in table.column_names]
    )
    position = pa.array(np.arange(item["offset"], item["offset"] + item["rows"]))
    table = table.append_column("position", position)
    for name in planned.column_names[1:]:
        table = table.append_column(name, planned[name])
    schema = TEST_RECORDS if split == "test" else TRAIN_RECORDS
    name = f"{split}/part-{item['number']:05d}.parquet"
    target.write_table(name, table.select(schema.names).cast(schema), fingerprint)
    voters = ""
    if item["ballots"]:
        voters = f"voters/{split}/part-{item['number']:05d}.parquet"
        target.write_table(voters, staged.read_table(ballots_name(item["staged"])), fingerprint)
    yield {"file": name, "rows": item["rows"], "voters": voters}


def _notes(stage: Stage, manifest: dict[str, Any]) -> list[str]:
    metrics = manifest["metrics"]
    notes = []
    votes, rows = metrics.get("votes", {}), manifest["rows"].get("train", 0)
    if votes and round(sum(votes.values()), 6) != rows:
        counted = ", ".join(f"{written_count(count)} {name}" for name, count in votes.items())
        notes.append(f"{written_count(sum(votes.values()))} votes on {rows:,} pairs: {counted}")
    if "fold_rows" in metrics:
        notes += _vote_notes(metrics["votes"]) + _fold_notes(metrics["fold_rows"], metrics)
    for name, of_split in {"": metrics, **{split: metrics.get(split, {}) for split in manifest["rows"]}}.items():
        notes += _merge_notes(of_split, f"{name}: " if name else "")
    if metrics.get("attachments"):
        notes.append(f"{metrics['attachments']} images and files are left out; a marker is in their place")
    reasons = metrics["quarantine"]
    if reasons:
        counted, count = _listed(collections.Counter(reasons)), sum(reasons.values())
        plural = "s" if count > 1 else ""
        notes.append(f"{count} row{plural} quarantined ({counted}): see {stage.folder / 'quarantine'}")
    return notes


def _merge_notes(metrics: Mapping[str, Any], of_source: str) -> list[str]:
    """Return which votes count as others, of the training votes or of another source."""
    notes = []
    if "both_bad_as_tie" in metrics:
        count = written_count(metrics["both_bad_as_tie"])
        notes.append(
            f"{of_source}{count} votes that both are bad count as ties; data.outcomes=[a, b, tie, both_bad] keeps them"
        )
    if "ties_as_halves" in metrics:
        count = written_count(metrics["ties_as_halves"])
        notes.append(f"{of_source}{count} ties count half for each side; data.outcomes=[a, b, tie] keeps them")
    if "repeated_votes" in metrics:
        count = written_count(metrics["repeated_votes"])
        notes.append(f"{of_source}{count} votes are further votes of a voter on the same pair; all of them count")
    return notes


def _vote_notes(votes: Mapping[str, float]) -> list[str]:
    """Return what to know where outcomes have too few votes to learn from, or all votes are for one outcome."""
    if sum(count > 0 for count in votes.values()) == 1:
        only = next(name for name, count in votes.items() if count)
        return [f"every vote is {only}: there is nothing to learn but that"]
    rare = [f"{written_count(count)} for {name}" for name, count in votes.items() if count < RARE_VOTES]
    return [f"too few votes to learn from: {', '.join(rare)}; some folds train on even fewer"] if rare else []


def _fold_notes(rows: Sequence[int], metrics: Mapping[str, Any]) -> list[str]:
    """Return what to know where one prompt has most of a fold's records."""
    if max(rows) <= 2 * min(rows) or metrics["largest_prompt"] <= 2 * min(rows):
        return []
    share = metrics["largest_prompt"] / sum(rows)
    return [
        f"folds have {min(rows):,} to {max(rows):,} records, because one prompt has {share:.0%} of them; "
        "fewer folds (data.folds) or votes on more prompts even that out"
    ]
