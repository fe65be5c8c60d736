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

from infer.llm_settings import LlmSettings
from preference.errors import InputError
from preference.packing import packing_fingerprint
from preference.schema import TEXTS
from ray_jobs import cli, demo_data, predictions
from ray_jobs.artifacts import Stage, read_manifest
from ray_jobs.progress import Progress, say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult, connect, require_resources
from ray_jobs.settings import Llm
from ray_jobs.storage import Folder


def score_llm(run: Run) -> list[StageResult]:
    """Make predictions/<name> for every language model of the settings."""
    check(run)
    records = open_records(run)
    results = demo_data.make_checkpoints(run)
    for llm in run.settings.llms:
        checkpoint = _checkpoint(run, llm)
        stage = Stage(
            f"score_llm/{llm.name}",
            run.folder / f"predictions/{llm.name}",
            settings={
                "packing": packing_fingerprint(llm.max_tokens),
                "dtype": _settings(run, llm).effective_dtype,
                **llm.model_dump(mode="json", include={"max_tokens", "swap", "engine"}),
            },
            inputs={"records": records.fingerprint, "checkpoint": _checkpoint_fingerprint(checkpoint)},
        )
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            connect(run)
            require_resources(llm.cpus_per_replica, llm.gpus_per_replica, f"llms.{llm.name}")
            manifest = _score(run, records, llm, stage)
        results.append(StageResult(stage.name, cached, manifest))
    return results


def check(run: Run) -> None:
    """Raise InputError for what would stop the scoring later: vLLM missing, a checkpoint that cannot score."""
    if not run.settings.llms:
        return
    from infer.llm_checkpoint import check_checkpoint, require_vllm

    for llm in run.settings.llms:
        require_vllm(llm.gpus_per_replica)
        if llm.checkpoint is not None:
            check_checkpoint(llm.checkpoint, llm.max_tokens)
        elif "://" in run.settings.run:
            raise InputError(
                "a model built inside the run needs the run on a file system",
                where=f"llms.{llm.name}.demo",
                fix="give run a path, or the model a checkpoint.",
            )


def _checkpoint(run: Run, llm: Llm) -> str:
    return str(demo_data.checkpoint_folder(run, llm)) if llm.checkpoint is None else llm.checkpoint


def _settings(run: Run, llm: Llm) -> LlmSettings:
    return LlmSettings(
        checkpoint=_checkpoint(run, llm),
        seed=run.settings.seed,
        **llm.model_dump(exclude={"name", "demo", "checkpoint"}),
    )


def _checkpoint_fingerprint(checkpoint: str) -> str:
    """What a checkpoint is: the stage that made it, else the names and contents of its files; for a hub id, the id.

    Whole files are read: two fine-tunes of one model can have the same sizes and differ in their last tensors alone.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    manifest = read_manifest(Folder(checkpoint))
    if manifest is not None:
        return str(manifest["fingerprint"])
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _shard_file(shard: str) -> str:
    return f"shards/{shard}"


def _score(run: Run, records: Records, llm: Llm, stage: Stage) -> dict[str, Any]:
    from infer.llm import Shard, score_shards

    stage.begin()
    shards = [shard for split in records.splits for shard in records.shards(split)]
    done = {
        shard
        for shard in shards
        if not run.force and stage.folder.table_fingerprint(_shard_file(shard)) == stage.fingerprint
    }
    missing = [Shard(shard, records.shard_rows(shard)) for shard in shards if shard not in done]
    read = functools.partial(_read_shard, folder=records.folder)
    progress = Progress(stage.name, "shards", total=len(shards), done=len(done))
    if missing:
        say(stage.name, "starting the engine")
    tokens = 0
    failures: dict[str, str] = {}
    for scores in score_shards(missing, read, _settings(run, llm)):
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


def _read_shard(shard: str, folder: Folder) -> pa.Table:
    return folder.read_table(shard, ["id", *TEXTS])


def _gather(records: Records, split: str, folder: Folder) -> pa.Table:
    """One table of a split's shards in input order; with the records' folds for training records."""
    scored = pa.concat_tables([folder.read_table(_shard_file(shard)) for shard in records.shards(split)])
    folds = records.read(split, ["fold"])["fold"].to_numpy() if split == "train" else None
    return predictions.table(scored["id"], predictions.probabilities(scored), folds)


if __name__ == "__main__":
    sys.exit(cli.main("score_llm", __doc__, score_llm))
