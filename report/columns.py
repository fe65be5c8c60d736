"""Gather small columns about each record for the report, shard by shard: the driver sees no texts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.progress import Progress
from core.ray_session import connect
from core.shards import Item, map_shards
from core.stage import fingerprint
from featurize.arena_style import STYLE_FEATURES, arena_style
from featurize.families.language import LanguageFamily
from featurize.text import DistinctTexts
from votes import duplicates

if TYPE_CHECKING:
    from core.run import Run
    from core.storage import Folder
    from votes.records import Records

# Part of the fingerprint of the columns. Raise it when they change.
VERSION = 1
_ENGLISH = [feature.name for feature in LanguageFamily.text_features].index("english")


def gather_columns(run: Run, records: Records, folder: Folder) -> dict[str, pa.Table]:
    """Return the columns of each split in the order of its records. Write missing ones first.

    They are in columns/ of the report's folder, a file for each shard. They are written again only for other records.
    """
    fingerprints = {
        split: fingerprint([VERSION, duplicates.VERSION, records.fingerprint_of(split)]) for split in records.splits
    }
    items = [
        {"split": split, "shard": shard, "fingerprint": fingerprints[split]}
        for split in records.splits
        for shard in records.shards(split)
    ]
    stored = folder.table_fingerprints([column_file(item["shard"]) for item in items])
    missing = [item for item, digest in zip(items, stored, strict=True) if run.force or digest != item["fingerprint"]]
    if missing:
        connect(run)
        progress = Progress("report", "shards", total=len(missing))
        work = functools.partial(_describe_shard, records=records.folder, target=folder)
        for done in map_shards(missing, work):
            progress.advance(rows=done["rows"])
    return {
        split: pa.concat_tables([folder.read_table(column_file(shard)) for shard in records.shards(split)])
        for split in records.splits
    }


def column_file(shard: str) -> str:
    """Return the name of the file with a shard's columns, in the report's folder."""
    return f"columns/{shard}"


def _describe_shard(item: Item, records: Folder, target: Folder) -> Iterator[Item]:
    table = records.read_table(item["shard"], ["id", "prompt", "response_a", "response_b"])
    columns = compute_columns(table) if item["split"] == "train" else {}
    target.write_table(
        column_file(item["shard"]), pa.table({"id": table["id"], **columns, **_hashes(table)}), item["fingerprint"]
    )
    yield {"rows": len(table)}


def compute_columns(records: pa.Table) -> dict[str, Any]:
    """Return columns (n,): turns and language of the prompt, code, and the lengths and style of the answers."""
    distinct = DistinctTexts.of(records)
    prompts, *answers = (
        [distinct.texts[n] for n in distinct.index[part]] for part in ("prompt", "response_a", "response_b")
    )
    known = {id(text): arena_style(text) for part in answers for text in part}
    columns: dict[str, Any] = {
        "turns": np.array([len(prompt.turns) for prompt in prompts], np.int32),
        "english": np.array([LanguageFamily().describe(prompt)[_ENGLISH] == 1 for prompt in prompts], np.bool_),
        "code": np.array([any(text.code_blocks for text in texts) for texts in zip(prompts, *answers, strict=True)]),
    }
    for side, part in zip("ab", answers, strict=True):
        columns[f"chars_{side}"] = np.array([len(text.full) for text in part], np.int64)
        for n, name in enumerate(STYLE_FEATURES):
            columns[f"{name}_{side}"] = np.array([known[id(text)][n] for text in part], np.float64)
    return columns


def _hashes(records: pa.Table) -> dict[str, Any]:
    rows = [records[part].to_pylist() for part in ("prompt", "response_a", "response_b")]
    exact = [duplicates.text_hash(prompt, [a, b]) for prompt, a, b in zip(*rows, strict=True)]
    near = np.array([duplicates.minhash_signature(texts) for texts in zip(*rows, strict=True)], np.uint32)
    signatures = pa.FixedSizeListArray.from_arrays(pa.array(near.ravel()), duplicates.PERMUTATIONS)
    return {"text_hash": pa.array(exact, pa.int64()), "signature": signatures}


def read_signatures(columns: pa.Table) -> duplicates.Signatures:
    """Return the MinHash signatures (n, 128) among the columns of a split."""
    flat = pa.concat_arrays([chunk.flatten() for chunk in columns["signature"].chunks])
    rows: duplicates.Signatures = flat.to_numpy().reshape(-1, duplicates.PERMUTATIONS)
    return rows
