"""Write predictions of fine-tuned encoders: out-of-fold for training records, the folds' mean for test records."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core import logs
from core.model_cache import fetch_folder
from core.progress import Progress
from core.ray_session import connect
from core.resources import require_capacity, resource_seconds, workers_request
from core.run import Run, StageResult
from core.stage import Stage
from featurize.tokens.packing import packing_settings
from train.finetune.checkpoints import MODEL_FOLDER
from train.finetune.stages import finetune_fold_stage, out_of_fold_predictions, trained_folds
from votes import predictions

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.settings.finetune import FinetunedEncoder
    from core.storage import Folder
    from infer.classifier import Classifier, PackedOrder
    from votes.records import Records


def encoder_predictions_stage(run: Run, records: Records, encoder: FinetunedEncoder, models: Stage) -> Stage:
    """Return the stage of predictions/<name>. `models` is the stage of the folds' models."""
    return Stage(
        f"predict/{encoder.name}",
        run.folder / f"predictions/{encoder.name}",
        settings={"folds": trained_folds(run, encoder)},
        inputs={"records": records.fingerprint, "models": models.fingerprint},
    )


def predict_with_encoder(run: Run, records: Records, encoder: FinetunedEncoder, models: Stage) -> StageResult:
    """Gather the out-of-fold predictions, and predict the test records with every fold's model.

    `models` may be a stage of another run. Then `records` has no training records.
    """
    folds = trained_folds(run, encoder)
    stage = encoder_predictions_stage(run, records, encoder, models)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult(stage.name, True, manifest)
    stage.begin()
    tables, seconds = {}, 0.0
    if "train" in records.splits:
        out_of_fold = out_of_fold_predictions(records, models, folds)
        fold_of = records.folds()
        is_predicted = np.isin(fold_of, folds)
        ids = records.read("train", ["id"])["id"].filter(pa.array(is_predicted))
        tables["train"] = predictions.predictions_table(ids, out_of_fold[is_predicted], fold_of[is_predicted])
    failed = pa.Table.from_pylist([], predictions.QUARANTINE_COLUMNS)
    if "test" in records.splits:
        connect(run)
        test, seconds = _predict_test(run, records, encoder, models, stage)
        is_predicted = ~np.isnan(test[:, 0])
        ids = records.read("test", ["id"])["id"].filter(pa.array(is_predicted))
        tables["test"] = predictions.predictions_table(ids, test[is_predicted])
        failed = _quarantine(run, records, encoder)
        if len(failed):
            first = failed.slice(0, 1).to_pylist()[0]
            logs.info(
                stage.name, f"{len(failed)} test records have no prediction, first {first['id']}: {first['reason']}"
            )
    stage.folder.write_table(predictions.QUARANTINE_FILE, failed, stage.fingerprint)
    for split, table in tables.items():
        stage.folder.write_table(f"{split}.parquet", table, stage.fingerprint)
    rows = {split: len(table) for split, table in tables.items()}
    cost = resource_seconds(seconds, encoder.cpus_per_worker, encoder.gpus_per_worker)
    keep = {predictions.QUARANTINE_FILE, *(f"{split}.parquet" for split in tables)}
    return StageResult(stage.name, False, stage.commit(rows, metrics=cost, keep=keep, seconds=seconds))


def _predict_test(
    run: Run, records: Records, encoder: FinetunedEncoder, models: Stage, stage: Stage
) -> tuple[Probabilities, float]:
    """Return the mean over the folds of the test predictions (n, 3), and the seconds that they took.

    Actors predict shard by shard. Records that could not be packed are nan.
    """
    import ray.data

    folds, shards = trained_folds(run, encoder), records.shards("test")
    # Fold by fold, so that an actor rarely loads another model.
    tasks = [(fold, shard) for fold in folds for shard in shards]
    fingerprints = stage.folder.table_fingerprints([_shard_file(fold, shard) for fold, shard in tasks])
    items = [
        {"fold": fold, "shard": shard}
        for (fold, shard), fingerprint in zip(tasks, fingerprints, strict=True)
        if run.force or fingerprint != stage.fingerprint
    ]
    progress = Progress(stage.name, "shards", len(tasks), len(tasks) - len(items))
    seconds = 0.0
    if items:
        require_capacity(dataclasses.replace(workers_request("train_encoder", encoder), count=1))
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _ShardPredictor,
            fn_constructor_args=(encoder, models, run.folder / f"tokens/{encoder.name}", stage),
            batch_size=1,
            concurrency=(1, len(items)),  # as many actors as the cluster has room for
            num_cpus=encoder.cpus_per_worker,
            num_gpus=encoder.gpus_per_worker or None,
        )
        for done in dataset.iter_rows():
            progress.advance(rows=int(done["rows"]))
            seconds += float(done["seconds"])

    def shard_mean(shard: str) -> Probabilities:
        tables = (stage.folder.read_table(_shard_file(fold, shard)) for fold in folds)
        mean: Probabilities = np.mean([predictions.probabilities_from_table(table) for table in tables], axis=0)
        return mean

    return np.concatenate([shard_mean(shard) for shard in shards]), seconds


def _quarantine(run: Run, records: Records, encoder: FinetunedEncoder) -> pa.Table:
    """Return the test records that could not be packed."""
    tokens = run.folder / f"tokens/{encoder.name}"
    packed = pa.concat_tables([tokens.read_table(shard, ["id", "reason"]) for shard in records.shards("test")])
    failed = packed.filter(pc.not_equal(packed["reason"], "")).to_pylist()
    return pa.Table.from_pylist(
        [{**record, "split": "test", "replaced": False} for record in failed], predictions.QUARANTINE_COLUMNS
    )


def _shard_file(fold: int, shard: str) -> str:
    return f"shards/fold-{fold}/{shard}"


class _ShardPredictor:
    """An actor that predicts shard after shard, and loads a fold's model when the fold changes."""

    def __init__(self, encoder: FinetunedEncoder, models: Stage, tokens: Folder, stage: Stage) -> None:
        self._encoder, self._models, self._tokens, self._stage = encoder, models, tokens, stage
        self._load = functools.lru_cache(maxsize=1)(self._classifier)

    def _classifier(self, fold: int) -> Classifier:
        from infer.classifier import Classifier

        model = finetune_fold_stage(self._models, fold)
        return Classifier(
            fetch_folder(model.folder / MODEL_FOLDER, model.fingerprint),
            # Without gradients several times as many tokens would fit.
            self._encoder.max_tokens_per_microbatch,
            self._encoder.cpus_per_worker,
            self._encoder.gpus_per_worker > 0,
            self._encoder.dtype == "bfloat16",
            packing_settings(self._encoder.max_tokens, self._encoder.layout, self._encoder.truncation),
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows, seconds = [], []
        for fold, shard in zip(batch["fold"], batch["shard"], strict=True):
            started = time.monotonic()
            table = self._tokens.read_table(shard)
            is_packed = pc.equal(table["reason"], "")
            packed = table.filter(is_packed)
            predicted_rows = self._load(int(fold)).predict(_read_order(packed, "ab"), _read_order(packed, "ba"))
            values = np.full((len(table), predicted_rows.shape[1]), np.nan)
            values[is_packed.to_numpy()] = predicted_rows
            predicted = pa.table(predictions.probability_columns(values))
            self._stage.folder.write_table(_shard_file(int(fold), shard), predicted, self._stage.fingerprint)
            rows.append(len(table))
            seconds.append(time.monotonic() - started)
        return {"rows": rows, "seconds": seconds}


def _read_order(table: pa.Table, order: str) -> PackedOrder:
    """Return the ids of each record in one order, and the parts they belong to."""
    ids, parts = (table[name].to_pylist() for name in (order, f"{order}_parts"))
    return [np.asarray(values, np.int32) for values in ids], [np.asarray(values, np.int8) for values in parts]
