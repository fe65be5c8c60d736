"""Turn input files into records: validate rows, quarantine bad ones, divide the training records into folds.

There are two passes, so that no process needs all texts in memory. The first validates files into staged shards. Then
ids, labels and prompt hashes suffice to check ids and compute folds. The second pass adds position and fold, shard by
shard.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import InputError
from core.filesystems import InputFile, list_input_files, raise_if_unreachable
from core.progress import Progress
from core.ray_session import connect
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage
from votes.folds import assign_folds
from votes.readers import ENDINGS, read_header
from votes.record_reader import read_records
from votes.records import record_settings
from votes.schema import LABELS, TEST_RECORDS, TRAIN_RECORDS
from votes.validation import TextFormat, check_columns

if TYPE_CHECKING:
    from core.arrays import Folds, Groups, Labels
    from core.storage import Folder


def records_stage(run: Run, digests: Mapping[str, str]) -> Stage:
    """Return the stage of records/, built from files with these digests, by names such as train/0."""
    return Stage("ingest", run.folder / "records", settings=record_settings(run), inputs=digests)


def find_input_files(location: str, split: str) -> list[InputFile]:
    """Return the files of a split. Raises InputError for a wrong header, before Ray starts."""
    files = list_input_files(location, ENDINGS)
    for file in files:
        header = read_header(file)
        if header is not None:
            check_columns(header, file.name, labeled=split != "test")
    return files


def file_digests(split: str, files: Sequence[InputFile]) -> dict[str, str]:
    """Return digests of the contents of a split's files, by names such as train/0."""
    return {f"{split}/{n}": _digest(file) for n, file in enumerate(files)}


def ingest_files(
    run: Run, stage: Stage, sources: Mapping[str, str], files: Mapping[str, list[InputFile]]
) -> StageResult:
    """Build the records of the splits in `sources` (their locations) from their files, unless they are built."""
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult("ingest", True, manifest, _notes(stage, manifest))
    connect(run)
    staged = run.folder / ".work/ingest"
    staged.delete_all()
    try:
        manifest = _ingest(run, stage, staged, sources, files)
    finally:
        staged.delete_all()
    return StageResult("ingest", False, manifest, _notes(stage, manifest))


def _digest(file: InputFile) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with (
        raise_if_unreachable(file.name),
        file.filesystem.open_input_stream(file.path, compression=None) as stream,
    ):
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _ingest(
    run: Run, stage: Stage, staged: Folder, sources: Mapping[str, str], files: Mapping[str, list[InputFile]]
) -> dict[str, Any]:
    data = run.settings.data
    items = [{"split": split, "file": n} for split, of_split in files.items() for n in range(len(of_split))]
    validate = functools.partial(
        _validate_file, staged=staged, files=files, text_format=data.text_format, shard_rows=data.shard_rows
    )
    parts: list[Item] = []
    progress = Progress("ingest", "files", total=len(items))
    for part in map_shards(items, validate):
        if part["error"]:
            raise InputError(*json.loads(part["error"]))
        parts.append(part)
        progress.add_rows(part["rows"])
        if part["last"]:
            progress.advance()
    parts.sort(key=lambda part: (part["split"], part["name"]))
    for split, location in sources.items():
        _refuse_empty(location, [part for part in parts if part["split"] == split])

    import ray

    plan = ray.remote(num_cpus=1)(_plan)
    shards: list[Item] = []
    metrics: dict[str, Any] = {}
    names = {split: [part["name"] for part in parts if part["split"] == split and part["rows"]] for split in sources}
    for split in sources:  # train before other sources, whose folds follow from its own
        planned = ray.get(plan.remote(staged, split, names, data.folds, run.settings.seed, sources[split]))
        shards += planned["shards"]
        metrics |= planned["metrics"]

    # Only now is the input known to be good: the output of an earlier run stays complete until here.
    stage.begin()
    write = functools.partial(_write_records, staged=staged, target=stage.folder, fingerprint=stage.fingerprint)
    rejected = [part for part in parts if part["quarantined"]]
    shard_rows = {row["file"]: row["rows"] for row in map_shards(shards, write)}
    written = set(shard_rows)
    for number, part in enumerate(rejected):
        name = f"quarantine/part-{number:05d}.parquet"
        stage.folder.write_table(name, staged.read_table(_rejected(part["name"])), stage.fingerprint)
        written.add(name)
    reasons: collections.Counter[str] = collections.Counter()
    for part in rejected:
        reasons.update(json.loads(part["reasons"]))
    rows = {split: sum(shard["rows"] for shard in shards if shard["split"] == split) for split in sources}
    return stage.commit(
        rows={**rows, "quarantine": reasons.total()},
        schema={field.name: str(field.type) for field in TRAIN_RECORDS},
        metrics={"quarantine": dict(reasons.most_common()), **metrics},
        keep=written,
        extra={"shards": dict(sorted(shard_rows.items()))},
    )


def _validate_file(
    item: Item, staged: Folder, files: Mapping[str, list[InputFile]], text_format: TextFormat, shard_rows: int
) -> Iterator[Item]:
    """Validate one file (first pass): stage a shard of records and one of rejected rows for every `shard_rows` rows."""
    split, file = item["split"], files[item["split"]][item["file"]]
    result = {"split": split, "name": "", "rows": 0, "quarantined": 0, "reasons": "{}", "error": "", "last": True}
    try:
        tables = read_records(file, split != "test", text_format, shard_rows)
        for number, (records, rejected) in enumerate(tables):
            name = f"{split}/file-{item['file']:05d}-{number:06d}.parquet"
            staged.write_table(name, records)
            reasons: list[str] = rejected["reason"].to_pylist()
            if reasons:
                staged.write_table(_rejected(name), rejected)
            yield result | {
                "name": name,
                "rows": len(records),
                "quarantined": len(reasons),
                "reasons": json.dumps(collections.Counter(map(_reason_class, reasons))),
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


def _refuse_empty(location: str, parts: list[Item]) -> None:
    if sum(part["rows"] for part in parts):
        return
    reasons: collections.Counter[str] = collections.Counter()
    for part in parts:
        reasons.update(json.loads(part["reasons"]))
    if not reasons:
        raise InputError("there is a header but no rows", where=location, fix="give a file with rows.")
    counted = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
    raise InputError(
        f"none of the {reasons.total()} rows is valid ({counted})", where=location, fix="fix the rows and run again."
    )


def _plan(
    staged: Folder, split: str, by_split: dict[str, list[str]], folds: int, seed: int, location: str
) -> dict[str, Any]:
    """Check ids, compute folds, and lay out the final shards. Reads only ids, groups and labels."""
    names = by_split[split]
    columns = ["id", "group", "row"] + ([] if split == "test" else ["label"])
    tables = [staged.read_table(name, columns) for name in names]
    table = pa.concat_tables(tables)
    _refuse_duplicates(table, names, tables, location)
    metrics: dict[str, Any] = {}
    fold: Any = None
    if split == "train":
        labels = table["label"].to_numpy()
        try:
            fold = assign_folds(labels, table["group"].to_numpy(), folds, seed)
        except ValueError as error:
            raise InputError(str(error), where=location, fix="give more records or a smaller data.folds.") from error
        metrics["labels"] = _label_counts(labels)
        metrics["fold_rows"] = np.bincount(fold, minlength=folds).tolist()
        metrics["prompts"] = len(pc.unique(table["group"]))
    elif split != "test":
        fold = _folds_of_other_source(staged, by_split["train"], table["group"].to_numpy())
        overlap = {"labels": _label_counts(table["label"].to_numpy()), "with_a_prompt_of_train": int((fold >= 0).sum())}
        metrics[split] = overlap
    shards = []
    offset = 0
    for number, (name, part) in enumerate(zip(names, tables, strict=True)):
        if fold is not None:
            staged.write_table(f"folds/{name}", pa.table({"fold": fold[offset : offset + len(part)]}))
        shards.append({"split": split, "staged": name, "number": number, "offset": offset, "rows": len(part)})
        offset += len(part)
    return {"shards": shards, "metrics": metrics}


def _label_counts(labels: Labels) -> dict[str, int]:
    return dict(zip(LABELS, np.bincount(labels, minlength=3).tolist(), strict=True))


def _folds_of_other_source(staged: Folder, train: list[str], groups: Groups) -> Folds:
    """Return the fold (n,) of train with the same prompt, or -1. That fold's models never see the record."""
    train_groups = np.concatenate([staged.read_table(name, ["group"])["group"].to_numpy() for name in train])
    folds = np.concatenate([staged.read_table(f"folds/{name}")["fold"].to_numpy() for name in train])
    known, first = np.unique(train_groups, return_index=True)
    position = np.minimum(np.searchsorted(known, groups), len(known) - 1)
    same_prompt: Folds = np.where(known[position] == groups, folds[first[position]], -1).astype(np.int16)
    return same_prompt


def _refuse_duplicates(table: pa.Table, names: list[str], tables: list[pa.Table], location: str) -> None:
    counts = pc.value_counts(table["id"].combine_chunks())
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if not len(repeated):
        return
    first = repeated[0].as_py()
    at = np.flatnonzero(pc.equal(table["id"], first).to_numpy())[:2]
    file_of = np.repeat([name.rpartition("/file-")[2][:5] for name in names], [len(part) for part in tables])
    rows = table["row"].to_numpy()
    files = "" if len(set(file_of)) == 1 else f" of files {int(file_of[at[0]]) + 1} and {int(file_of[at[1]]) + 1}"
    more = f"; {len(repeated)} ids are repeated" if len(repeated) > 1 else ""
    raise InputError(
        f"the id {first!r} is used in rows {rows[at[0]]} and {rows[at[1]]}{files}{more}",
        where=location,
        fix="give every record its own id.",
    )


def _write_records(item: Item, staged: Folder, target: Folder, fingerprint: str) -> Iterator[Item]:
    """Write the final file of one shard (second pass), with position and fold."""
    split = item["split"]
    table = staged.read_table(item["staged"]).drop_columns(["row"])
    position = pa.array(np.arange(item["offset"], item["offset"] + item["rows"]))
    table = table.append_column("position", position)
    if split != "test":
        table = table.append_column("fold", staged.read_table(f"folds/{item['staged']}")["fold"])
    schema = TEST_RECORDS if split == "test" else TRAIN_RECORDS
    name = f"{split}/part-{item['number']:05d}.parquet"
    target.write_table(name, table.select(schema.names).cast(schema), fingerprint)
    yield {"file": name, "rows": item["rows"]}


def _notes(stage: Stage, manifest: dict[str, Any]) -> list[str]:
    reasons = manifest["metrics"]["quarantine"]
    if not reasons:
        return []
    counted = ", ".join(f"{count} x {reason}" for reason, count in reasons.items())
    count = sum(reasons.values())
    return [f"{count} row{'s' if count > 1 else ''} quarantined ({counted}): see {stage.folder / 'quarantine'}"]
