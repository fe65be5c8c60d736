"""Score training and test records with language models: vLLM actors under Ray Data.

Run as: python -m ray_jobs.score_llm --config configs/demo.yaml

The models come trained, so each scores every record once, training and test records alike; no record's fold matters.
The unit of resume is the shard.
"""

import functools
import hashlib
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from preference.packing import packing_fingerprint
from preference.schema import TEXTS
from ray_jobs import cli, demo_data, predictions
from ray_jobs.artifacts import Stage
from ray_jobs.progress import Progress, say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult, connect
from ray_jobs.settings import Llm
from ray_jobs.storage import Folder


def score_llm(run: Run) -> list[StageResult]:
    """Make predictions/<name> for every language model of the settings."""
    records = open_records(run)
    results = demo_data.make_checkpoints(run)
    for llm in run.settings.llms:
        checkpoint = str(demo_data.checkpoint_folder(run, llm)) if llm.demo else str(llm.checkpoint)
        stage = Stage(
            f"score_llm/{llm.name}",
            run.folder / f"predictions/{llm.name}",
            settings={
                "packing": packing_fingerprint(llm.max_tokens),
                **llm.model_dump(mode="json", include={"max_tokens", "swap", "dtype", "engine"}),
            },
            inputs={"records": records.fingerprint, "checkpoint": _checkpoint_fingerprint(checkpoint)},
        )
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            connect(run)
            manifest = _score(run, records, llm, checkpoint, stage)
        results.append(StageResult(stage.name, cached, manifest))
    return results


def _checkpoint_fingerprint(checkpoint: str) -> str:
    """What a checkpoint is: its files' names and sizes, and the content of all but the weights; for a hub id, the id.

    Gigabytes of weights are told apart by their first mebibyte, which holds the names and shapes and the first tensors.
    """
    digest = hashlib.blake2b(checkpoint.encode() if not Path(checkpoint).is_dir() else b"", digest_size=16)
    for path in sorted(Path(checkpoint).glob("*")):
        if path.is_file() and path.name != "manifest.json":
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            with path.open("rb") as file:
                digest.update(file.read(1 << 20))
    return digest.hexdigest()


def _shard_file(shard: str) -> str:
    return f"shards/{shard}"


def _score(run: Run, records: Records, llm: Llm, checkpoint: str, stage: Stage) -> dict[str, Any]:
    from infer.llm import Shard, score_shards
    from infer.llm_settings import LlmSettings

    settings = LlmSettings(
        name=llm.name,
        checkpoint=checkpoint,
        seed=run.settings.seed,
        **llm.model_dump(exclude={"name", "demo", "checkpoint"}),
    )
    stage.begin()
    shards = [shard for split in records.splits for shard in records.shards(split)]
    done = {
        shard
        for shard in shards
        if not run.force and stage.folder.table_fingerprint(_shard_file(shard)) == stage.fingerprint
    }
    missing = [Shard(shard, _rows(records, shard)) for shard in shards if shard not in done]
    read = functools.partial(_read_shard, folder=records.folder)
    progress = Progress(stage.name, "shards", total=len(shards), done=len(done))
    if missing:
        say(stage.name, "starting the engine")
    tokens = 0
    failures: dict[str, str] = {}
    for scores in score_shards(missing, read, settings):
        tokens += scores.tokens
        failures |= scores.failures
        if not scores.failures:
            table = predictions.table(pa.chunked_array([pa.array(scores.ids, pa.string())]), scores.probabilities)
            stage.folder.write_table(_shard_file(scores.key), table, stage.fingerprint)
        progress.advance(rows=len(scores.ids), note=f"{scores.tokens / max(scores.seconds, 1e-3):,.0f} tokens/s")
    if failures:
        first = next(iter(failures))
        raise RuntimeError(
            f"{llm.name}: {len(failures)} records could not be scored, first id {first}: {failures[first]}"
        )
    tables = {split: _gather(records, split, stage.folder) for split in records.splits}
    for split, table in tables.items():
        stage.folder.write_table(f"{split}.parquet", table, stage.fingerprint)
    return stage.commit(
        rows={split: len(table) for split, table in tables.items()},
        metrics={"tokens_scored_last": tokens},
        keep={*map(_shard_file, shards), *(f"{split}.parquet" for split in tables)},
    )


def _rows(records: Records, shard: str) -> int:
    return len(records.folder.read_table(shard, ["id"]))


def _read_shard(shard: str, folder: Folder) -> pa.Table:
    return folder.read_table(shard, ["id", *TEXTS])


def _gather(records: Records, split: str, folder: Folder) -> pa.Table:
    """One table of a split's shards in input order; with the records' folds for training records."""
    scored = pa.concat_tables([folder.read_table(_shard_file(shard)) for shard in records.shards(split)])
    folds = records.read(split, ["fold"])["fold"].to_numpy() if split == "train" else None
    return predictions.table(scored["id"], predictions.probabilities(scored), folds)


if __name__ == "__main__":
    sys.exit(cli.main("score_llm", __doc__, score_llm))
