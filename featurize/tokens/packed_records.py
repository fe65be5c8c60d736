"""Token ids of records: packed once for all folds and epochs, shard by shard."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.pretrained import load_tokenizer
from core.progress import Progress
from core.ray_session import connect
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage
from featurize.tokens.columns import DIGEST_BYTES, PACKED_SCHEMA
from featurize.tokens.packing import MarkedIds, Packer, TextFrame, packing_fingerprint
from votes.schema import TEXTS

if TYPE_CHECKING:
    import ray

    from core.model_cache import CheckpointRef
    from core.settings.finetune import FinetunedModel
    from core.settings.packing import TokenLayout, Truncation
    from core.storage import Folder
    from votes.records import Records

VERSION = 2  # part of the fingerprint: raise it when the columns change


@dataclass(frozen=True)
class Packing:
    """How records are packed, apart from the tokenizer; see featurize.tokens.packing.Packer."""

    max_tokens: int
    layout: TokenLayout = "decoder"
    truncation: Truncation = "right"
    frame: TextFrame | None = None

    @property
    def fingerprint(self) -> str:
        """The hash of all fields."""
        return packing_fingerprint(self.max_tokens, self.layout, self.truncation, self.frame)

    def packer(self, tokenizer: Any) -> Packer:  # noqa: ANN401 - a tokenizer of transformers, which has no types
        """Return the packer that uses a tokenizer."""
        return Packer(tokenizer, self.max_tokens, self.layout, self.truncation, self.frame)


def training_packing(model: FinetunedModel) -> Packing:
    """Return how the training records of a model are packed."""
    return Packing(model.max_tokens, model.layout, model.truncation)


def pack_records(run: Run, records: Records, name: str, base: CheckpointRef, packing: Packing) -> StageResult:
    """Write tokens/<name>: for every shard the ids of both orders, their hashes, and their number.

    A record that cannot be packed has no ids; its column `reason` says why.
    """
    stage = Stage(
        f"tokens/{name}",
        run.folder / f"tokens/{name}",
        settings={"packing": packing.fingerprint, "version": VERSION},
        inputs={"records": records.fingerprint, "model": base.fingerprint},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult(stage.name, True, manifest)
    connect(run)
    stage.begin()
    items: list[Item] = []
    total = 0
    for split in records.splits:
        first = 0
        shards = records.shards(split)
        total += len(shards)
        for shard, fingerprint in zip(shards, stage.folder.table_fingerprints(shards), strict=True):
            if run.force or fingerprint != stage.fingerprint:
                items.append({"shard": shard, "first": first})
            first += records.shard_rows(shard)
    pack = functools.partial(_pack_shard, source=records.folder, stage=stage, base=base, packing=packing)
    progress = Progress(stage.name, "shards", total=total, done=total - len(items))
    for done in map_shards(items, pack):
        progress.advance(rows=done["rows"])
    rows = {split: records.rows(split) for split in records.splits}
    keep = {shard for split in records.splits for shard in records.shards(split)}
    return StageResult(stage.name, False, stage.commit(rows=rows, keep=keep))


def _pack_shard(item: Item, source: Folder, stage: Stage, base: CheckpointRef, packing: Packing) -> Iterator[Item]:
    packer = _packer(base, packing)
    table = source.read_table(item["shard"], ["id", *TEXTS])
    packed: list[tuple[MarkedIds, MarkedIds]] = []
    reasons = []
    for record in table.to_pylist():
        try:
            packed.append(packer.pack_both_marked(*(record[name] for name in TEXTS)))
            reasons.append("")
        except Exception as error:  # one bad record must not keep the others from being packed
            packed.append((([], []), ([], [])))
            reasons.append(f"cannot be packed: {type(error).__name__}: {error}")
    columns = {
        "id": table["id"],
        "row": np.arange(len(table)) + item["first"],
        "tokens": np.array([len(ids) for (ids, _), _ in packed], np.int32),
        "reason": reasons,
    }
    for order, name in enumerate(("ab", "ba")):
        ids = [orders[order][0] for orders in packed]
        columns[name] = pa.array(ids, pa.list_(pa.int32()))
        columns[f"{name}_parts"] = pa.array([orders[order][1] for orders in packed], pa.list_(pa.int8()))
        digests = [
            hashlib.blake2b(np.array(record, np.int32).tobytes(), digest_size=DIGEST_BYTES).digest() for record in ids
        ]
        columns[f"{name}_hash"] = pa.array(digests, pa.binary(DIGEST_BYTES))
    stage.folder.write_table(item["shard"], pa.table(columns), stage.fingerprint)
    yield {"rows": len(table)}


@functools.lru_cache(maxsize=1)
def _packer(base: CheckpointRef, packing: Packing) -> Packer:
    return packing.packer(load_tokenizer(base.header_only()))


def token_counts(run: Run, records: Records, name: str, split: str) -> npt.NDArray[np.int32]:
    """Return the number of tokens (n,) of one order of each record of a split."""
    folder = run.folder / f"tokens/{name}"
    counts = [folder.read_table(shard, ["tokens"])["tokens"].to_numpy() for shard in records.shards(split)]
    result: npt.NDArray[np.int32] = np.concatenate(counts)
    return result


def put_tokens(run: Run, records: Records, name: str, split: str) -> list[ray.ObjectRef[pa.Table]]:
    """Return references to tables with the schema PACKED_SCHEMA, which Ray Data reads into the object store.

    Workers of one node map them without a copy. They are no dataset shards of Ray Train. Timing decides which worker
    gets which record there, so a resumed step would differ.
    """
    import ray.data

    shards = records.shards(split)
    read = functools.partial(_read_shards, folder=run.folder / f"tokens/{name}", columns=PACKED_SCHEMA.names)
    items = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    packed = items.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=1)
    blocks: list[ray.ObjectRef[pa.Table]] = packed.materialize().to_arrow_refs()
    return blocks


def _read_shards(items: pa.Table, folder: Folder, columns: list[str]) -> pa.Table:
    return pa.concat_tables([folder.read_table(shard, columns) for shard in items["shard"].to_pylist()])
