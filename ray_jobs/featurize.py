"""Turn records into features: hand-made columns and sparse n-gram blocks, shard by shard.

Run as: python -m ray_jobs.featurize --config configs/demo.yaml

Vocabularies are fitted on the training records only. The unit of resume is the shard: each file carries the
fingerprint of the settings and records that made it, so changing one n-gram block redoes that block alone.
"""

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featurize import handmade, ngrams
from featurize.matrix import Block, Layout
from featurize.text import Text
from ray_jobs import cli
from ray_jobs.artifacts import Stage, fingerprint
from ray_jobs.progress import Progress, say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult, connect
from ray_jobs.settings import NgramBlock
from ray_jobs.shards import Item, map_shards
from ray_jobs.storage import Folder

_PARTS = {"prompt": ("prompt",), "response": ("response_a", "response_b")}
_SIDE = {"prompt": "prompt", "response_a": "a", "response_b": "b"}


@dataclass(frozen=True)
class _Output:
    """One kind of feature file: its folder below features/, and the fingerprint its shards must carry."""

    folder: str
    fingerprint: str
    block: NgramBlock | None = None


def featurize(run: Run) -> list[StageResult]:
    """Make features/handmade and features/ngrams/<block> for every split."""
    records = open_records(run)
    wanted = run.settings.featurize
    stage = Stage(
        "featurize",
        run.folder / "features",
        settings={
            "families": list(wanted.families),
            "ngrams": [block.model_dump(mode="json") for block in wanted.ngrams],
            "versions": {"handmade": handmade.VERSION, "ngrams": ngrams.VERSION},
        },
        inputs={"records": records.fingerprint},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("featurize", True, manifest)]

    stage.begin()
    connect(run)
    outputs = _outputs(wanted.families, wanted.ngrams, records.fingerprint)
    for output in outputs:
        if output.block is not None:
            _fit(stage.folder, records, output, output.block, redo=run.force)
    items = [
        {"split": split, "shard": name.partition("/")[2]} for split in records.splits for name in records.shards(split)
    ]
    work = functools.partial(
        _featurize_shard,
        records=records.folder,
        target=stage.folder,
        outputs=outputs,
        families=list(wanted.families),
        redo=run.force,
    )
    progress = Progress("featurize", "shards", total=len(items))
    keep = {f"{output.folder}/vocabulary.json" for output in outputs if output.block is not None}
    for done in map_shards(items, work):
        progress.advance(rows=done["rows"])
    keep |= {f"{output.folder}/{item['split']}/{item['shard']}" for output in outputs for item in items}
    layout = _layout(stage.folder, list(wanted.families), wanted.ngrams)
    columns = layout.columns()
    manifest = stage.commit(
        rows={split: records.rows(split) for split in records.splits},
        schema={column.name: "float32" for column in layout.handmade},
        metrics={"columns": len(columns)},
        keep=keep,
        extra={"catalogue": [column.as_dict() for column in layout.handmade]},
    )
    return [StageResult("featurize", False, manifest, [f"{len(columns)} columns for the boosters"])]


def read_layout(folder: Folder, manifest: dict[str, Any]) -> Layout:
    """The columns that boosters see, as the finished features were made, whatever the settings are now."""
    blocks = [NgramBlock.model_validate(block) for block in manifest["settings"]["ngrams"]]
    return _layout(folder, manifest["settings"]["families"], blocks)


def _layout(folder: Folder, families: list[str], blocks: list[NgramBlock]) -> Layout:
    return Layout(
        handmade.columns(families),
        [
            Block(block.name, block.part, block.view, folder.read_json(f"ngrams/{block.name}/vocabulary.json")["terms"])
            for block in blocks
        ],
    )


def read_matrix(folder: Folder, layout: Layout, split: str, shard: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The dense matrix (n, d) of one shard, for example of shard part-00000.parquet of train."""
    made = folder.read_table(f"handmade/{split}/{shard}") if layout.handmade else None
    blocks = {b.name: folder.read_table(f"ngrams/{b.name}/{split}/{shard}").drop_columns(["id"]) for b in layout.blocks}
    return layout.dense(made, blocks)


def _outputs(families: list[Any], blocks: list[NgramBlock], records: str) -> list[_Output]:
    outputs = []
    if families:
        made = fingerprint({"families": list(families), "version": handmade.VERSION, "records": records})
        outputs.append(_Output("handmade", made))
    for block in blocks:
        # The view is chosen when boosters read the block; the files hold both sides whatever it is.
        settings = block.model_dump(mode="json", exclude={"view"})
        outputs.append(
            _Output(
                f"ngrams/{block.name}",
                fingerprint({"block": settings, "version": ngrams.VERSION, "records": records}),
                block,
            )
        )
    return outputs


def _block_settings(block: NgramBlock) -> ngrams.NgramSettings:
    return ngrams.NgramSettings(block.analyzer, block.ngram_range, block.weighting, block.min_df, block.max_features)


def _texts(table: pa.Table, part: str) -> list[str]:
    return [Text(turns).full for turns in table[part].to_pylist()]


def _fit(target: Folder, records: Records, output: _Output, block: NgramBlock, redo: bool) -> None:
    """Fit a block's vocabulary on the training records, unless it is there already."""
    import ray

    name = f"{output.folder}/vocabulary.json"
    if not redo and _fitted_from(target, name) == output.fingerprint:
        return
    count, merge, choose = (ray.remote(num_cpus=1)(f) for f in (_count, ngrams.merge_counts, _choose_vocabulary))
    counts = [count.remote(records.folder, shard, block) for shard in records.shards("train")]
    while len(counts) > 1:
        # Merged four by four, so that no process ever holds the counts of all shards.
        counts = [merge.remote(*counts[at : at + 4]) for at in range(0, len(counts), 4)]
    texts = records.rows("train") * len(_PARTS[block.part])
    terms = ray.get(choose.remote(counts[0], texts, block, target, name, output.fingerprint))
    say("featurize", f"n-gram block {block.name}: {terms} terms")


def _fitted_from(target: Folder, name: str) -> str | None:
    try:
        return str(target.read_json(name)["fingerprint"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _count(records: Folder, shard: str, block: NgramBlock) -> pa.Table:
    parts = _PARTS[block.part]
    table = records.read_table(shard, list(parts))
    return ngrams.count_terms([text for part in parts for text in _texts(table, part)], _block_settings(block))


def _choose_vocabulary(
    counts: pa.Table, texts: int, block: NgramBlock, target: Folder, name: str, made_from: str
) -> int:
    vocabulary = ngrams.choose_vocabulary(counts, texts, _block_settings(block))
    fitted = {"fingerprint": made_from, "terms": vocabulary.terms, "idf": vocabulary.idf.tolist()}
    target.write_json(name, fitted)
    return len(vocabulary.terms)


def _featurize_shard(
    item: Item, records: Folder, target: Folder, outputs: list[_Output], families: list[str], redo: bool
) -> Iterator[Item]:
    """Make every feature file of one shard that is not there yet."""
    split, shard = item["split"], item["shard"]
    names = {output: f"{output.folder}/{split}/{shard}" for output in outputs}
    missing = [o for o in outputs if redo or target.table_fingerprint(names[o]) != o.fingerprint]
    table = records.read_table(f"{split}/{shard}", ["id", "prompt", "response_a", "response_b"])
    for output in missing:
        if output.block is None:
            matrix = handmade.featurize(table, families)
            made = {column.name: matrix[:, n] for n, column in enumerate(handmade.columns(families))}
        else:
            fitted = target.read_json(f"{output.folder}/vocabulary.json")
            vocabulary = ngrams.Vocabulary(fitted["terms"], np.array(fitted["idf"]))
            settings = _block_settings(output.block)
            made = {
                _SIDE[part]: ngrams.transform(_texts(table, part), vocabulary, settings)
                for part in _PARTS[output.block.part]
            }
        target.write_table(names[output], pa.table({"id": table["id"], **made}), output.fingerprint)
    yield {"rows": len(table)}


if __name__ == "__main__":
    sys.exit(cli.main("featurize", __doc__, featurize))
