"""Records as the token ids that a model sees: packed once for all folds and epochs, shard by shard."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from preference.packing import Layout, Packer, packing_fingerprint
from preference.schema import TEXTS
from ray_jobs.artifacts import Stage
from ray_jobs.finetune_store import Base
from ray_jobs.progress import Progress
from ray_jobs.records import Records
from ray_jobs.run import Run, StageResult, connect
from ray_jobs.shards import Item, map_shards
from ray_jobs.storage import Folder

VERSION = 1  # part of the fingerprint: raise it when the columns change


def pack_records(run: Run, records: Records, name: str, base: Base, layout: Layout, max_tokens: int) -> StageResult:
    """Make tokens/<name>: of every shard the ids of both orders and how many they are."""
    stage = Stage(
        f"tokens/{name}",
        run.folder / f"tokens/{name}",
        settings={"packing": packing_fingerprint(max_tokens, layout), "version": VERSION},
        inputs={"records": records.fingerprint, "model": base.fingerprint},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult(stage.name, True, manifest)
    connect(run)
    stage.begin()
    items: list[Item] = []
    shards = 0
    for split in records.splits:
        first = 0
        for shard in records.shards(split):
            shards += 1
            if run.force or stage.folder.table_fingerprint(shard) != stage.fingerprint:
                items.append({"shard": shard, "first": first})
            first += records.shard_rows(shard)
    pack = functools.partial(_pack, source=records.folder, stage=stage, base=base, layout=layout, max_tokens=max_tokens)
    progress = Progress(stage.name, "shards", total=shards, done=shards - len(items))
    for done in map_shards(items, pack):
        progress.advance(rows=done["rows"])
    rows = {split: records.rows(split) for split in records.splits}
    keep = {shard for split in records.splits for shard in records.shards(split)}
    return StageResult(stage.name, False, stage.commit(rows=rows, keep=keep))


def _pack(item: Item, source: Folder, stage: Stage, base: Base, layout: Layout, max_tokens: int) -> Iterator[Item]:
    packer = _packer(base, layout, max_tokens)
    table = source.read_table(item["shard"], ["id", *TEXTS])
    packed = [packer.pack_both_marked(*(record[name] for name in TEXTS)) for record in table.to_pylist()]
    made = {
        "id": table["id"],
        "row": np.arange(len(table)) + item["first"],
        "tokens": np.array([len(ids) for (ids, _), _ in packed], np.int32),
    }
    for order, name in enumerate(("ab", "ba")):
        made[name] = pa.array([both[order][0] for both in packed], pa.list_(pa.int32()))
        made[f"{name}_parts"] = pa.array([both[order][1] for both in packed], pa.list_(pa.int8()))
    stage.folder.write_table(item["shard"], pa.table(made), stage.fingerprint)
    yield {"rows": len(table)}


@functools.lru_cache(maxsize=1)
def _packer(base: Base, layout: Layout, max_tokens: int) -> Packer:
    from train.networks import load_tokenizer

    return Packer(load_tokenizer(base.local()), max_tokens, layout)


def token_counts(run: Run, records: Records, name: str, split: str) -> npt.NDArray[np.int32]:
    """Tokens (n,) of one order of each record of a split."""
    folder = run.folder / f"tokens/{name}"
    counts = [folder.read_table(shard, ["tokens"])["tokens"].to_numpy() for shard in records.shards(split)]
    result: npt.NDArray[np.int32] = np.concatenate(counts)
    return result


def share_tokens(run: Run, records: Records, name: str, split: str) -> "list[Any]":
    """References to tables of the schema train.finetune_data.PACKED in the object store, read there by Ray Data."""
    import ray.data

    from train.finetune_data import PACKED, as_blocks

    shards = records.shards(split)
    read = functools.partial(_read, folder=run.folder / f"tokens/{name}", columns=PACKED.names)
    items = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    return as_blocks(items.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=1))


def _read(items: pa.Table, folder: Folder, columns: list[str]) -> pa.Table:
    return pa.concat_tables([folder.read_table(shard, columns) for shard in items["shard"].to_pylist()])
