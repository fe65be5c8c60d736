"""Fine-tune encoders in stages on Ray Train, fold by fold, and predict with them.

The unit of resume is the epoch: after each, the first worker writes a checkpoint to models/<name>/fold-<k>/checkpoint.
A finished fold has its model, predictions, history.json and TensorBoard's event file in models/<name>/fold-<k>.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.model_cache import local_folder
from core.progress import Progress, say
from core.ray_session import connect
from core.resources import held, require_room, workers_request
from core.run import Run, StageResult
from core.stage import Stage
from featurize.tokens.packing import packing_settings
from train.finetune.checkpoints import MODEL, Base
from train.finetune.folds import (
    base_of,
    fold_stage,
    folds_of,
    held_out_predictions,
)
from votes import predictions
from votes.schema import LABELS, TEXTS

if TYPE_CHECKING:
    from core.settings.finetune import Encoder
    from core.storage import Folder
    from votes.records import Records

SCRATCH_VERSION = 1  # part of the fingerprint: raise it when the same settings give another encoder
SCRATCH_RECORDS = 20_000  # that the tokenizer of an encoder from scratch is made from, at most


def base_and_builds(run: Run, records: Records, encoder: Encoder) -> tuple[Base, list[StageResult]]:
    """The model to start from, and what was built for it."""
    stage = scratch_stage(run, records, encoder)
    base = base_of_encoder(encoder, stage)
    if stage is None:
        return base, []
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return base, [StageResult(stage.name, True, manifest)]
    import ray

    connect(run)
    stage.begin()
    say(stage.name, "making the tokenizer")
    build = ray.remote(num_cpus=1)(_build_scratch)
    manifest = ray.get(build.remote(records, encoder, stage, run.settings.seed))
    return base, [StageResult(stage.name, False, manifest)]


def scratch_stage(run: Run, records: Records, encoder: Encoder) -> Stage | None:
    """The stage that builds the model an encoder starts from; None if it is pre-trained."""
    if encoder.scratch is None:
        return None
    return Stage(
        f"scratch/{encoder.name}",
        run.folder / f"scratch/{encoder.name}",
        settings={
            "seed": run.settings.seed,
            "version": SCRATCH_VERSION,
            "max_tokens": encoder.max_tokens,
            **encoder.scratch.model_dump(),
        },
        inputs={"records": records.fingerprint_of("train")},
    )


def base_of_encoder(encoder: Encoder, scratch: Stage | None) -> Base:
    """The model that an encoder starts from; `scratch` is the stage that builds it, if it is not pre-trained."""
    if scratch is None:
        return base_of(encoder.base)
    return Base(scratch.folder.uri, scratch.fingerprint, in_run=True)


def _build_scratch(records: Records, encoder: Encoder, stage: Stage, seed: int) -> dict[str, Any]:
    from train.finetune.scratch import build_scratch

    started = time.monotonic()
    assert encoder.scratch is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = encoder.scratch.model_dump()
        size = build_scratch(folder, _texts(records), max_tokens=encoder.max_tokens, seed=seed, **shape)
        names = {path.name for path in folder.iterdir()}
        for file in sorted(names):
            stage.folder.write_file(file, folder / file)
    return stage.commit({}, metrics={"vocabulary": size}, keep=names, seconds=time.monotonic() - started)


def _texts(records: Records) -> Iterator[str]:
    left = SCRATCH_RECORDS
    for shard in records.shards("train"):
        if left <= 0:
            return
        table = records.folder.read_table(shard, list(TEXTS)).slice(0, left)
        left -= len(table)
        for name in TEXTS:
            for turns in table[name].to_pylist():
                yield from (turn.encode("utf-8", "replace").decode() for turn in turns if turn)


def predictions_stage(run: Run, records: Records, encoder: Encoder, of: Stage) -> Stage:
    """The stage of predictions/<name>, made by the models of the stage `of`."""
    return Stage(
        f"predict/{encoder.name}",
        run.folder / f"predictions/{encoder.name}",
        settings={"folds": folds_of(run, encoder)},
        inputs={"records": records.fingerprint, "models": of.fingerprint},
    )


def predict_records(run: Run, records: Records, encoder: Encoder, of: Stage) -> StageResult:
    """Put out-of-fold predictions together, and predict the test records with every fold's model.

    The models of the stage `of` may be those of another run, whose training records are then not among these.
    """
    folds = folds_of(run, encoder)
    stage = predictions_stage(run, records, encoder, of)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult(stage.name, True, manifest)
    stage.begin()
    tables, seconds = {}, 0.0
    if "train" in records.splits:
        out_of_fold = held_out_predictions(records, of, folds)
        _, fold_of = records.labels_and_folds()
        there = np.isin(fold_of, folds)
        ids = records.read("train", ["id"])["id"].filter(pa.array(there))
        tables["train"] = predictions.table(ids, out_of_fold[there], fold_of[there])
    lost = pa.Table.from_pylist([], predictions.QUARANTINED)
    if "test" in records.splits:
        connect(run)
        test, seconds = _predict_test(run, records, encoder, of, stage)
        there = ~np.isnan(test[:, 0])
        tables["test"] = predictions.table(records.read("test", ["id"])["id"].filter(pa.array(there)), test[there])
        lost = _quarantine(run, records, encoder)
        if len(lost):
            first = lost.slice(0, 1).to_pylist()[0]
            say(stage.name, f"{len(lost)} test records have no prediction, first {first['id']}: {first['reason']}")
    stage.folder.write_table(predictions.QUARANTINE, lost, stage.fingerprint)
    for split, table in tables.items():
        stage.folder.write_table(f"{split}.parquet", table, stage.fingerprint)
    rows = {split: len(table) for split, table in tables.items()}
    cost = held(seconds, encoder.cpus_per_worker, encoder.gpus_per_worker)
    kept = {predictions.QUARANTINE, *(f"{split}.parquet" for split in tables)}
    return StageResult(stage.name, False, stage.commit(rows, metrics=cost, keep=kept, seconds=seconds))


def _predict_test(
    run: Run, records: Records, encoder: Encoder, of: Stage, stage: Stage
) -> tuple[predictions.Floats, float]:
    """Mean over the folds' models of the test predictions (n, 3), made shard by shard by actors, and their seconds.

    Records that could not be packed have nan.
    """
    import ray.data

    folds, shards = folds_of(run, encoder), records.shards("test")
    # Fold by fold, so that an actor seldom loads another model.
    every = [(fold, shard) for fold in folds for shard in shards]
    made_by = stage.folder.table_fingerprints([_shard_file(fold, shard) for fold, shard in every])
    items = [
        {"fold": fold, "shard": shard}
        for (fold, shard), made in zip(every, made_by, strict=True)
        if run.force or made != stage.fingerprint
    ]
    progress = Progress(stage.name, "shards", len(folds) * len(shards), len(folds) * len(shards) - len(items))
    seconds = 0.0
    if items:
        require_room(dataclasses.replace(workers_request("train_encoder", encoder), count=1))
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _PredictShards,
            fn_constructor_args=(encoder, of, run.folder / f"tokens/{encoder.name}", stage),
            batch_size=1,
            concurrency=(1, len(items)),  # as many actors as the cluster has room for
            num_cpus=encoder.cpus_per_worker,
            num_gpus=encoder.gpus_per_worker or None,
        )
        for done in dataset.iter_rows():
            progress.advance(rows=int(done["rows"]))
            seconds += float(done["seconds"])

    def of_shard(shard: str) -> predictions.Floats:
        tables = (stage.folder.read_table(_shard_file(fold, shard)) for fold in folds)
        mean: predictions.Floats = np.mean([predictions.probabilities(table) for table in tables], axis=0)
        return mean

    return np.concatenate([of_shard(shard) for shard in shards]), seconds


def _quarantine(run: Run, records: Records, encoder: Encoder) -> pa.Table:
    """The test records that could not be packed."""
    tokens = run.folder / f"tokens/{encoder.name}"
    packed = pa.concat_tables([tokens.read_table(shard, ["id", "reason"]) for shard in records.shards("test")])
    lost = packed.filter(pc.not_equal(packed["reason"], "")).to_pylist()
    return pa.Table.from_pylist(
        [{**each, "split": "test", "replaced": False} for each in lost], predictions.QUARANTINED
    )


def _shard_file(fold: int, shard: str) -> str:
    return f"shards/fold-{fold}/{shard}"


class _PredictShards:
    """An actor that predicts shard after shard, loading a fold's model when the fold changes."""

    def __init__(self, encoder: Encoder, of: Stage, tokens: Folder, stage: Stage) -> None:
        self._encoder, self._of, self._tokens, self._stage = encoder, of, tokens, stage
        self._load = functools.lru_cache(maxsize=1)(self._classifier)

    def _classifier(self, fold: int) -> Any:  # noqa: ANN401 - infer.classifier.Classifier, imported where it is used
        from infer.classifier import Classifier

        of = fold_stage(self._of, fold)
        return Classifier(
            local_folder(of.folder / MODEL, of.fingerprint),
            # Without gradients several times as many tokens fit.
            self._encoder.tokens_per_batch,
            self._encoder.cpus_per_worker,
            self._encoder.gpus_per_worker > 0,
            self._encoder.precision == "bfloat16",
            packing_settings(self._encoder.max_tokens, self._encoder.layout, self._encoder.truncation),
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows, seconds = [], []
        for fold, shard in zip(batch["fold"], batch["shard"], strict=True):
            started = time.monotonic()
            table = self._tokens.read_table(shard)
            there = pc.equal(table["reason"], "")
            packed = table.filter(there)
            predicted = np.full((len(table), len(LABELS)), np.nan)
            predicted[there.to_numpy()] = self._load(int(fold)).predict(*(_packed(packed, o) for o in ("ab", "ba")))
            made = pa.table(predictions.columns(predicted))
            self._stage.folder.write_table(_shard_file(int(fold), shard), made, self._stage.fingerprint)
            rows.append(len(table))
            seconds.append(time.monotonic() - started)
        return {"rows": rows, "seconds": seconds}


def _packed(table: pa.Table, order: str) -> tuple[list[Any], list[Any]]:
    """Ids of each record in one order, and the parts they belong to."""
    ids, parts = (table[name].to_pylist() for name in (order, f"{order}_parts"))
    return [np.asarray(each, np.int32) for each in ids], [np.asarray(each, np.int8) for each in parts]
