"""Records as the token ids that a model sees: packed once for all folds and epochs, shard by shard."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.progress import Progress
from core.ray_session import connect
from core.run import Run, StageResult
from core.shards import Item, map_shards
from core.stage import Stage
from featurize.tokens.packing import Layout, Marked, Packer, packing_fingerprint
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.settings.finetune import FineTuned
    from core.storage import Folder
    from featurize.tokens.truncation import Truncation
    from infer.scoring.mode import Frame
    from train.finetune.checkpoints import Base
    from votes.records import Records

VERSION = 2  # part of the fingerprint: raise it when the columns change
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Packing:
    """How records are packed, apart from the tokenizer; see featurize.tokens.packing.Packer."""

    max_tokens: int
    layout: Layout = "decoder"
    truncation: Truncation = "right"
    frame: Frame | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of all of it."""
        return packing_fingerprint(self.max_tokens, self.layout, self.truncation, self.frame)

    def packer(self, tokenizer: Any) -> Packer:  # noqa: ANN401 - a tokenizer of transformers, which has no types
        """The packer with a tokenizer."""
        return Packer(tokenizer, self.max_tokens, self.layout, self.truncation, self.frame)


def packing_of(model: FineTuned) -> Packing:
    """How the records are packed that a model is trained on."""
    return Packing(model.max_tokens, model.layout, model.truncation)


def pack_records(run: Run, records: Records, name: str, base: Base, packing: Packing) -> StageResult:
    """Make tokens/<name>: of every shard the ids of both orders, their hashes, and how many they are.

    A record that cannot be packed has no ids, and its `reason` says why.
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
    shards = 0
    for split in records.splits:
        first = 0
        of_split = records.shards(split)
        shards += len(of_split)
        for shard, made_by in zip(of_split, stage.folder.table_fingerprints(of_split), strict=True):
            if run.force or made_by != stage.fingerprint:
                items.append({"shard": shard, "first": first})
            first += records.shard_rows(shard)
    pack = functools.partial(_pack, source=records.folder, stage=stage, base=base, packing=packing)
    progress = Progress(stage.name, "shards", total=shards, done=shards - len(items))
    for done in map_shards(items, pack):
        progress.advance(rows=done["rows"])
    rows = {split: records.rows(split) for split in records.splits}
    keep = {shard for split in records.splits for shard in records.shards(split)}
    return StageResult(stage.name, False, stage.commit(rows=rows, keep=keep))


def _pack(item: Item, source: Folder, stage: Stage, base: Base, packing: Packing) -> Iterator[Item]:
    packer = _packer(base, packing)
    table = source.read_table(item["shard"], ["id", *TEXTS])
    packed: list[tuple[Marked, Marked]] = []
    reasons = []
    for record in table.to_pylist():
        try:
            packed.append(packer.pack_both_marked(*(record[name] for name in TEXTS)))
            reasons.append("")
        except Exception as error:  # whatever is wrong with a record, the others are packed
            packed.append((([], []), ([], [])))
            reasons.append(f"cannot be packed: {type(error).__name__}: {error}")
    made = {
        "id": table["id"],
        "row": np.arange(len(table)) + item["first"],
        "tokens": np.array([len(ids) for (ids, _), _ in packed], np.int32),
        "reason": reasons,
    }
    for order, name in enumerate(("ab", "ba")):
        ids = [both[order][0] for both in packed]
        made[name] = pa.array(ids, pa.list_(pa.int32()))
        made[f"{name}_parts"] = pa.array([both[order][1] for both in packed], pa.list_(pa.int8()))
        digests = [
            hashlib.blake2b(np.array(each, np.int32).tobytes(), digest_size=DIGEST_BYTES).digest() for each in ids
        ]
        made[f"{name}_hash"] = pa.array(digests, pa.binary(DIGEST_BYTES))
    stage.folder.write_table(item["shard"], pa.table(made), stage.fingerprint)
    yield {"rows": len(table)}


@functools.lru_cache(maxsize=1)
def _packer(base: Base, packing: Packing) -> Packer:
    from train.finetune.networks import load_tokenizer

    return packing.packer(load_tokenizer(base.outline()))


def token_counts(run: Run, records: Records, name: str, split: str) -> npt.NDArray[np.int32]:
    """Tokens (n,) of one order of each record of a split."""
    folder = run.folder / f"tokens/{name}"
    counts = [folder.read_table(shard, ["tokens"])["tokens"].to_numpy() for shard in records.shards(split)]
    result: npt.NDArray[np.int32] = np.concatenate(counts)
    return result


def share_tokens(run: Run, records: Records, name: str, split: str) -> list[Any]:
    """References to tables of the schema train.finetune.data.PACKED in the object store, read there by Ray Data."""
    import ray.data

    from train.finetune.data import PACKED, as_blocks

    shards = records.shards(split)
    read = functools.partial(_read, folder=run.folder / f"tokens/{name}", columns=PACKED.names)
    items = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    return as_blocks(items.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=1))


def _read(items: pa.Table, folder: Folder, columns: list[str]) -> pa.Table:
    return pa.concat_tables([folder.read_table(shard, columns) for shard in items["shard"].to_pylist()])
