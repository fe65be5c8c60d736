"""Fine-tune the folds of a model into models/<name>, for train_encoder and train_llm."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import logs
from core.errors import InputError
from core.filesystems import resolve_filesystem
from core.progress import Progress
from core.ray_session import connect
from core.resources import count_fitting, require_capacity, resource_seconds, workers_request
from core.run import Run, StageResult
from featurize.tokens.packed_records import put_tokens, token_counts
from train.finetune.checkpoints import CHECKPOINT_FOLDER, RunFoldStore
from train.finetune.data import TokenData
from train.finetune.networks import other_head_classes
from train.finetune.sampler import plan_epoch
from train.finetune.stages import finetune_fold_stage, trained_folds
from train.finetune.task import FoldTask
from votes import predictions
from votes.schema import LABELS

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.model_cache import CheckpointRef
    from core.settings.finetune import FinetunedModel
    from core.stage import Stage
    from votes.records import Records

_RAY_TRAIN = "ray_train"  # folder of a model for Ray Train's own notes, removed at the end


def fine_tune_folds(
    run: Run, records: Records, model: FinetunedModel, base: CheckpointRef, stage: Stage
) -> StageResult:
    """Train the missing folds, each into models/<name>/fold-<k>. `stage` is that of the model."""
    folds = trained_folds(run, model)
    finished = {fold: None if run.force else finetune_fold_stage(stage, fold).manifest() for fold in folds}
    missing = [fold for fold, manifest in finished.items() if manifest is None]
    if not missing and (manifest := stage.manifest()) is not None and manifest.get("folds") == folds:
        return StageResult(stage.name, True, manifest, _teacher_warnings(run, model))
    connect(run)
    stage.begin()
    if missing:
        _train(run, records, model, base, stage, missing)
    (stage.folder / _RAY_TRAIN).delete_all()
    manifests = {}
    for fold in folds:
        fold_stage = finetune_fold_stage(stage, fold)
        (fold_stage.folder / CHECKPOINT_FOLDER).delete_all()  # left by a job that was killed after the fold's manifest
        manifests[fold] = fold_stage.manifest() or {}
    metrics: dict[str, Any] = {
        name: {fold: manifest["metrics"][name] for fold, manifest in manifests.items()}
        for name in ("log_loss", "tokens")
    }
    for name in resource_seconds(0, 0, 0):
        metrics[name] = sum(manifest["metrics"][name] for manifest in manifests.values())
    manifest = stage.commit(
        rows={"train": sum(manifest["rows"]["train"] for manifest in manifests.values())},
        metrics=metrics,
        keep={name for name in stage.folder.files() if name.startswith("fold-")},  # of all folds, also earlier ones
        seconds=sum(manifest["seconds"] for manifest in manifests.values()),
        extra={"folds": folds},
    )
    return StageResult(stage.name, False, manifest, _teacher_warnings(run, model))


def _teacher_warnings(run: Run, model: FinetunedModel) -> list[str]:
    if model.teacher is None:
        return []
    teacher = model.teacher.model
    if teacher in run.settings.possibly_contaminated:
        return [
            f"warning: its teacher {teacher} may have been trained on these votes, as an external checkpoint; if so, "
            "the scores of this model are inflated"
        ]
    return [f"its teacher {teacher} was trained on votes of the held-out folds, which may inflate the scores"]


def _train(
    run: Run, records: Records, model: FinetunedModel, base: CheckpointRef, stage: Stage, missing: list[int]
) -> None:
    from train.finetune.fold_trainer import fine_tune  # imports Ray

    request = workers_request(stage.name.partition("/")[0], model)
    require_capacity(request)
    data = _token_data(run, records, model)
    for note in training_notes(run, base, model, data.lengths[data.folds != missing[0]], data.classes):
        logs.info(stage.name, note)
    tasks = []
    for fold in missing:
        fold_stage = finetune_fold_stage(stage, fold)
        if run.force:
            fold_stage.folder.delete_all()
        fold_stage.begin()
        store = RunFoldStore(
            fold_stage,
            base,
            data.votes[data.folds == fold],
            records.fingerprint_of("train"),
            records.vote_files,
            cpus=model.num_workers * model.cpus_per_worker,
            gpus=model.num_workers * model.gpus_per_worker,
        )
        tasks.append(FoldTask(fold, run.settings.seed, model, data, store))
    total = len(trained_folds(run, model))
    progress = Progress(stage.name, "folds", total=total, done=total - len(missing))
    storage = resolve_filesystem((stage.folder / _RAY_TRAIN).uri)
    at_once = model.folds_at_once or count_fitting(request, len(missing))

    def on_progress(fold: int, text: str) -> None:
        logs.info(stage.name, f"fold {fold}: {text}")

    for fold in fine_tune(tasks, storage, at_once, on_progress, functools.partial(logs.info, stage.name)):
        loss = (finetune_fold_stage(stage, fold).manifest() or {})["metrics"]["log_loss"]
        progress.advance(note=f"fold {fold}: held-out log loss {loss:.4f}")


def training_notes(
    run: Run, base: CheckpointRef, model: FinetunedModel, lengths: npt.NDArray[np.int32], classes: int = 3
) -> list[str]:
    """Return notes on data, head and workers, to log before the first step.

    `lengths` (n,) are the tokens of a fold's training records.
    """
    notes = []
    if run.settings.data.others:
        names = ", ".join(source.name for source in run.settings.data.others)
        notes.append(f"only the first source of votes is used; the other sources ({names}) train boosters only")
    foreign = [] if base.in_run or model.compares_answers else other_head_classes(base.header_only(), classes)
    if foreign:
        names = ", ".join(foreign[:5]) + (" and more" if len(foreign) > 5 else "")
        notes.append(f"{base.location} has a head for {names}; replacing it with one for {', '.join(LABELS[:classes])}")
    microbatches = _mean_microbatches(model, lengths)
    if microbatches < model.num_workers:
        notes.append(
            f"{model.num_workers} workers share {microbatches:.1f} microbatches a step, so some are idle: raise "
            "global_batch_size, or lower max_tokens_per_microbatch or num_workers"
        )
    return notes


def _mean_microbatches(model: FinetunedModel, lengths: npt.NDArray[np.int32]) -> float:
    """Return the mean number of microbatches of a step, over one epoch."""
    plan = plan_epoch(lengths, model.global_batch_size, model.max_tokens_per_microbatch, model.orders, seed=(0,))
    return float(np.mean([len(step.microbatches) for step in plan]))


def _token_data(run: Run, records: Records, model: FinetunedModel) -> TokenData:
    lengths = token_counts(run, records, model.name, "train")
    if not lengths.all():
        raise InputError(
            f"{int((lengths == 0).sum())} training records cannot be packed; the column reason says why",
            where=f"{run.folder}/tokens/{model.name}",
            fix="leave these records out of data.train.",
        )
    blocks = put_tokens(run, records, model.name, "train")
    counts = records.training_vote_counts()
    counts *= len(counts) / counts.sum()  # a mean of 1, so that the learning rate fits whatever the votes are
    return TokenData(blocks, lengths, counts, records.folds(), _teacher_predictions(run, records, model))


def _teacher_predictions(run: Run, records: Records, model: FinetunedModel) -> Probabilities | None:
    """Return the teacher's out-of-fold predictions (n, k): of each record by a model that did not see its vote.

    They still carry information about the student's held-out votes. The student of fold k learns from predictions on
    the other folds. Their teachers were trained on fold k, too. That may inflate the student's held-out score by an
    unknown amount. Only teachers trained again for each k, without it, would prevent that. Records that the teacher
    could not score are nan.
    """
    if model.teacher is None:
        return None
    return predictions.read_predictions(run, records, model.teacher.model, "train")
