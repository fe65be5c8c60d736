"""Score training and test records with language models: vLLM actors under Ray Data.

Run as: python -m ray_jobs.score_llm --config configs/demo.yaml

A checkpoint that comes trained scores every record, training and test records alike. Of a model that train_llm trained
here, each fold's checkpoint scores the training records of its fold and all test records, for which the folds are
averaged. The unit of resume is the shard.
"""

import functools
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infer.llm_settings import LlmSettings
from preference.errors import InputError
from preference.packing import packing_fingerprint
from preference.schema import TEXTS
from ray_jobs import cli, demo_data, predictions
from ray_jobs.artifacts import Stage, read_manifest
from ray_jobs.finetune_store import MODEL, TRAINED_ON
from ray_jobs.local_copy import local_folder
from ray_jobs.progress import Progress, say
from ray_jobs.records import Records, open_records
from ray_jobs.run import Run, StageResult, connect, require_resources
from ray_jobs.settings import Llm
from ray_jobs.storage import Folder

if TYPE_CHECKING:
    from infer.llm import ShardScores


@dataclass(frozen=True)
class _Scorer:
    """One checkpoint and the training records that it scores: all, or those of the fold it was not trained on."""

    checkpoint: str
    fold: int | None = None

    @property
    def prefix(self) -> str:
        """Folder of its shards."""
        return "shards" if self.fold is None else f"shards/fold-{self.fold}"

    def file(self, shard: str) -> str:
        """Where its scores of a shard of records are."""
        return f"{self.prefix}/{shard}"


def score_llm(run: Run) -> list[StageResult]:
    """Make predictions/<name> for every language model of the settings."""
    check(run)
    records = open_records(run)
    results = demo_data.make_checkpoints(run)
    for llm in run.settings.llms:
        scorers, identity = _scorers(run, records, llm)
        stage = Stage(
            f"score_llm/{llm.name}",
            run.folder / f"predictions/{llm.name}",
            settings={
                "packing": packing_fingerprint(llm.max_tokens),
                "dtype": _settings(run, llm, "").effective_dtype,
                **llm.model_dump(mode="json", include={"max_tokens", "swap", "engine"}),
            },
            inputs={"records": records.fingerprint, "checkpoint": identity},
        )
        manifest = None if run.force else stage.manifest()
        cached = manifest is not None
        if manifest is None:
            connect(run)
            require_resources(llm.cpus_per_replica, llm.gpus_per_replica, f"llms.{llm.name}")
            manifest = _score(run, records, llm, scorers, stage)
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
        elif llm.demo is not None and "://" in run.settings.run:
            raise InputError(
                "a model built inside the run needs the run on a file system",
                where=f"llms.{llm.name}.demo",
                fix="give run a path, or the model a checkpoint.",
            )


def _scorers(run: Run, records: Records, llm: Llm) -> tuple[list[_Scorer], str]:
    """The checkpoints of a model, and what they are together. Raises InputError if they are not trained yet."""
    if llm.trained is None:
        checkpoint = str(demo_data.checkpoint_folder(run, llm)) if llm.checkpoint is None else llm.checkpoint
        _refuse_seen(checkpoint, records, llm)
        return [_Scorer(checkpoint)], _checkpoint_fingerprint(checkpoint)
    trained = run.finished(f"models/{llm.trained}", "train_llm", records.fingerprint)
    places = {fold: run.folder / f"models/{llm.trained}/fold-{fold}" for fold in trained["folds"]}
    return [
        _Scorer(local_folder(place / MODEL, trained["fingerprint"] + str(fold)), fold) for fold, place in places.items()
    ], f"{trained['fingerprint']} {trained['folds']}"


def _refuse_seen(checkpoint: str, records: Records, llm: Llm) -> None:
    """Raise InputError if the checkpoint was trained on the very records that it would score."""
    try:
        trained_on = Folder(checkpoint).read_json(TRAINED_ON) if Path(checkpoint).is_dir() else {}
    except (FileNotFoundError, ValueError):
        return
    if trained_on.get("records") == records.fingerprint_of("train"):
        raise InputError(
            f"the checkpoint was trained on these records, all but those of fold {trained_on.get('fold')}, so that "
            "its predictions for them say nothing about others",
            where=f"llms.{llm.name}.checkpoint",
            fix="name the entry of trained_llms with `trained` instead, which scores each record out-of-fold.",
        )


def _settings(run: Run, llm: Llm, checkpoint: str) -> LlmSettings:
    return LlmSettings(
        checkpoint=checkpoint,
        seed=run.settings.seed,
        **llm.model_dump(exclude={"name", "demo", "checkpoint", "trained"}),
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


def _score(run: Run, records: Records, llm: Llm, scorers: list[_Scorer], stage: Stage) -> dict[str, Any]:
    stage.begin()
    shards = [shard for split in records.splits for shard in records.shards(split)]
    found = {
        scorer.file(shard)
        for scorer in scorers
        for shard in shards
        if not run.force and stage.folder.table_fingerprint(scorer.file(shard)) == stage.fingerprint
    }
    progress = Progress(stage.name, "shards", total=len(shards) * len(scorers), done=len(found))
    tokens = 0
    failures: dict[str, str] = {}
    for scorer in scorers:
        missing = [shard for shard in shards if scorer.file(shard) not in found]
        for scores in _score_shards(run, records, llm, scorer, missing, stage):
            tokens += scores.tokens
            failures |= scores.failures
            progress.advance(rows=len(scores.ids), note=f"{scores.tokens / max(scores.seconds, 1e-3):,.0f} tokens/s")
    if failures:
        first = next(iter(failures))
        raise RuntimeError(
            f"{llm.name}: {len(failures)} records could not be scored, first id {first}: {failures[first]}"
        )
    tables = {split: _gather(records, split, scorers, stage.folder) for split in records.splits}
    for split, table in tables.items():
        stage.folder.write_table(f"{split}.parquet", table, stage.fingerprint)
    return stage.commit(
        rows={split: len(table) for split, table in tables.items()},
        metrics={"tokens_scored_last": tokens},
        keep={
            *(scorer.file(shard) for scorer in scorers for shard in shards),
            *(f"{split}.parquet" for split in tables),
        },
    )


def _score_shards(
    run: Run, records: Records, llm: Llm, scorer: _Scorer, missing: list[str], stage: Stage
) -> "Iterator[ShardScores]":
    """Score shards with one checkpoint and write what has no failures."""
    from infer.llm import Shard, score_shards

    if missing:
        say(stage.name, "starting the engine" + ("" if scorer.fold is None else f" for fold {scorer.fold}"))
    counts = {shard: _rows_of(records, shard, scorer.fold) for shard in missing}
    wanted = [Shard(shard, rows) for shard, rows in counts.items()]
    read = functools.partial(_read_shard, folder=records.folder, fold=scorer.fold)
    for scores in score_shards(wanted, read, _settings(run, llm, scorer.checkpoint)):
        if not scores.failures:
            ids = pa.chunked_array([pa.array(scores.ids, pa.string())])
            table = predictions.table(ids, scores.probabilities)
            stage.folder.write_table(scorer.file(scores.key), table, stage.fingerprint)
        yield scores


def _rows_of(records: Records, shard: str, fold: int | None) -> int:
    if fold is None or not shard.startswith("train/"):
        return records.shard_rows(shard)
    return int((records.folder.read_table(shard, ["fold"])["fold"].to_numpy() == fold).sum())


def _read_shard(shard: str, folder: Folder, fold: int | None) -> pa.Table:
    if fold is None or not shard.startswith("train/"):
        return folder.read_table(shard, ["id", *TEXTS])
    table = folder.read_table(shard, ["id", *TEXTS, "fold"])
    return table.filter(pa.array(table["fold"].to_numpy() == fold)).drop_columns(["fold"])


def _gather(records: Records, split: str, scorers: list[_Scorer], folder: Folder) -> pa.Table:
    """One table of a split's shards in input order: out-of-fold for training records, a mean over folds for others."""
    scored = [
        pa.concat_tables([folder.read_table(scorer.file(shard)) for shard in records.shards(split)])
        for scorer in scorers
    ]
    if split != "train":
        mean = np.mean([predictions.probabilities(table) for table in scored], axis=0)
        return predictions.table(scored[0]["id"], mean)
    everything = pa.concat_tables(scored)
    known = records.read("train", ["id", "fold"])
    known = known.filter(pc.is_in(known["id"], everything["id"].combine_chunks()))
    ordered = everything.take(pc.index_in(known["id"], everything["id"].combine_chunks()))
    return predictions.table(known["id"], predictions.probabilities(ordered), known["fold"].to_numpy())


if __name__ == "__main__":
    sys.exit(cli.main("score_llm", __doc__, score_llm))
