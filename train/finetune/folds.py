"""What train_encoder and train_llm share: the settings as the domain's, and folds fine-tuned into models/<name>."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core import fingerprints
from core.errors import InputError
from core.filesystems import resolve
from core.model_cache import stored_fingerprint
from core.progress import Progress, say
from core.ray_session import connect
from core.resources import held, require_room, room_for, workers_request
from core.run import Run, StageResult
from core.settings.finetune import Encoder, FineTuned, TrainedLlm
from core.stage import Stage
from featurize.tokens.packed_records import packing_of, share_tokens, token_counts
from train.finetune.checkpoints import CHECKPOINT, HELD_OUT, Base, RunFoldStore
from train.finetune.loop import VERSION
from train.finetune.sampler import mean_micro_batches
from train.finetune.settings import Distillation, FineTuning, Lora, TrainingStage
from votes import predictions
from votes.schema import LABELS

if TYPE_CHECKING:
    from votes.records import Records

# Of the settings, those that decide nothing about the model, only where and how fast it is trained.
_NOT_THE_MODEL = {"name", "folds", "folds_at_once", "workers", "cpus_per_worker", "gpus_per_worker", "model", "scratch"}
_RAY_TRAIN = "ray_train"  # folder of a model where Ray Train keeps its own notes while it works


def base_of(model: str) -> Base:
    """A pre-trained model by folder, URI or hub id. Raises InputError if it cannot be loaded."""
    from train.finetune.networks import load_config, locate

    load_config(_outline_of(model))  # one that cannot be loaded is told here, not by every worker
    if "://" in model:
        return Base(model, stored_fingerprint(model))
    place = locate(model)
    return Base(place, fingerprints.identity(place))


def _outline_of(model: str) -> str:
    """A folder on this machine with what tells a model's shapes, or a hub id."""
    from train.finetune.networks import locate

    return Base(model, stored_fingerprint(model)).outline() if "://" in model else locate(model)


def check_bases(models: Sequence[Encoder | TrainedLlm]) -> None:
    """Raise InputError for a pre-trained model that cannot be loaded or reads fewer tokens than it is to be given."""
    from train.finetune.networks import load_config, most_tokens

    for model in models:
        if isinstance(model, Encoder) and model.scratch is not None:
            continue
        base = model.base if isinstance(model, Encoder) else model.model
        most = most_tokens(load_config(_outline_of(base)), decoder=isinstance(model, TrainedLlm))
        if most is not None and model.max_tokens > most:
            raise InputError(
                f"{base} reads at most {most} tokens, not {model.max_tokens}", f"{model.name}.max_tokens", "lower it."
            )


def domain_settings(run: Run, model: FineTuned) -> FineTuning:
    """The settings of one model as the training loop knows them."""
    shared = {name: getattr(model, name) for name in FineTuning.__dataclass_fields__ if hasattr(model, name)}
    teacher = model.teacher
    return FineTuning(
        **{
            **shared,
            "stages": tuple(TrainingStage(**stage.model_dump()) for stage in model.stages),
            "lora": Lora(**model.lora.model_dump()) if isinstance(model, TrainedLlm) else None,
            "distillation": None if teacher is None else Distillation(teacher.weight, teacher.temperature),
            "seed": run.settings.seed,
        }
    )


def folds_of(run: Run, model: FineTuned) -> list[int]:
    """The folds that are trained."""
    return sorted(model.folds) if model.folds is not None else list(range(run.settings.data.folds))


def model_stage(run: Run, records: Records, model: FineTuned, base: Base, job: str) -> Stage:
    """The stage of models/<name>; its fingerprint is that of the trained folds' models together."""
    inputs = {"records": records.fingerprint_of("train"), "base": base.fingerprint}
    if model.teacher is not None:
        inputs["teacher"] = predictions.model_fingerprints(run, records, [model.teacher.model])[model.teacher.model]
    return Stage(
        f"{job}/{model.name}",
        run.folder / f"models/{model.name}",
        settings={
            "seed": run.settings.seed,
            "version": VERSION,
            "packing": packing_of(model).fingerprint,
            **model.model_dump(mode="json", exclude=_NOT_THE_MODEL),
        },
        inputs=inputs,
    )


def fold_stage(of: Stage, fold: int) -> Stage:
    """The stage of one fold of a model."""
    return Stage(f"{of.name}/fold-{fold}", of.folder / f"fold-{fold}", {"fold": fold}, {"models": of.fingerprint})


def fine_tune_folds(run: Run, records: Records, model: FineTuned, base: Base, of: Stage) -> StageResult:
    """Train the folds that are missing, each into models/<name>/fold-<k>."""
    folds = folds_of(run, model)
    finished = {fold: None if run.force else fold_stage(of, fold).manifest() for fold in folds}
    missing = [fold for fold, manifest in finished.items() if manifest is None]
    if not missing and (manifest := of.manifest()) is not None and manifest.get("folds") == folds:
        return StageResult(of.name, True, manifest, _taught(run, model))
    connect(run)
    of.begin()
    if missing:
        _train(run, records, model, base, of, missing)
    _drop_notes(of, folds)
    manifests = {fold: fold_stage(of, fold).manifest() or {} for fold in folds}
    metrics: dict[str, Any] = {
        name: {fold: each["metrics"][name] for fold, each in manifests.items()} for name in ("log_loss", "tokens")
    }
    seconds = sum(each["seconds"] for each in manifests.values())
    metrics |= {name: sum(each["metrics"][name] for each in manifests.values()) for name in held(0, 0, 0)}
    kept = {name for name in of.folder.files() if name.startswith("fold-")}  # those of folds not asked for now stay too
    rows = {"train": sum(each["rows"]["train"] for each in manifests.values())}
    manifest = of.commit(rows, metrics=metrics, keep=kept, seconds=seconds, extra={"folds": folds})
    return StageResult(of.name, False, manifest, _taught(run, model))


def _taught(run: Run, model: FineTuned) -> list[str]:
    if model.teacher is None:
        return []
    teacher = model.teacher.model
    if teacher in run.settings.came_trained:
        return [
            f"whether its teacher {teacher} saw these votes in training is not known; if so, it teaches them, and no "
            "score of its student is honest"
        ]
    return [f"its teacher {teacher} was trained on votes that it is scored on, which may flatter it"]


def _train(run: Run, records: Records, model: FineTuned, base: Base, of: Stage, missing: list[int]) -> None:
    from train.finetune.data import TokenData
    from train.finetune.fold_trainer import fine_tune
    from train.finetune.task import FoldTask

    settings = domain_settings(run, model)
    request = workers_request(of.name.partition("/")[0], model)
    require_room(request)
    labels, folds = records.labels_and_folds()
    lengths = token_counts(run, records, model.name, "train")
    if not lengths.all():
        raise InputError(
            f"{int((lengths == 0).sum())} training records cannot be packed; the column reason says why",
            where=f"{run.folder}/tokens/{model.name}",
            fix="leave these records out of data.train.",
        )
    data = TokenData(
        blocks=share_tokens(run, records, model.name, "train"),
        lengths=lengths,
        labels=labels,
        folds=folds,
        teacher=_teacher(run, records, model),
    )
    for note in notes(run, base, settings, data.lengths[folds != missing[0]]):
        say(of.name, note)
    tasks = []
    for fold in missing:
        stage = fold_stage(of, fold)
        if run.force:
            stage.folder.delete_all()
        stage.begin()
        store = RunFoldStore(
            stage,
            base,
            labels[folds == fold],
            records.fingerprint_of("train"),
            records.votes,
            cpus=model.workers * model.cpus_per_worker,
            gpus=model.workers * model.gpus_per_worker,
        )
        tasks.append(FoldTask(fold, model.layout, model.truncation, model.max_tokens, data, settings, store))
    all_folds = folds_of(run, model)
    progress = Progress(of.name, "folds", total=len(all_folds), done=len(all_folds) - len(missing))
    storage = resolve((of.folder / _RAY_TRAIN).uri)
    at_once = model.folds_at_once or room_for(request, len(missing))

    def tell(fold: int, text: str) -> None:
        say(of.name, f"fold {fold}: {text}")

    for fold in fine_tune(tasks, storage, at_once, tell, functools.partial(say, of.name)):
        loss = (fold_stage(of, fold).manifest() or {})["metrics"]["log_loss"]
        progress.advance(note=f"fold {fold}: held-out log loss {loss:.4f}")


def notes(run: Run, base: Base, settings: FineTuning, lengths: npt.NDArray[np.int32]) -> list[str]:
    """What is to be known before the first step; `lengths` (n,) are tokens of the records trained on."""
    from train.finetune.networks import foreign_head

    found = []
    if run.settings.data.others:
        others = ", ".join(source.name for source in run.settings.data.others)
        found.append(f"trained on the first source of votes alone; those of {others} are for boosters")
    classes = [] if base.in_run or settings.head == "answers" else foreign_head(base.outline())
    if classes:
        shown = ", ".join(classes[:5]) + (" and more" if len(classes) > 5 else "")
        found.append(f"the head of {base.place} tells {shown} apart: a new one for A, B and tie takes its place")
    batches = mean_micro_batches(lengths, settings.records_per_step, settings.tokens_per_batch, settings.orders)
    if batches < settings.workers:
        found.append(
            f"{settings.workers} workers share {batches:.1f} micro-batches a step, so that some are idle: raise "
            "records_per_step, or lower tokens_per_batch or workers"
        )
    return found


def _drop_notes(of: Stage, finished: list[int]) -> None:
    (of.folder / _RAY_TRAIN).delete_all()
    for fold in finished:  # what a kill behind its manifest left
        (fold_stage(of, fold).folder / CHECKPOINT).delete_all()


def _teacher(run: Run, records: Records, model: FineTuned) -> Any:  # noqa: ANN401 - probabilities or None
    """The teacher's out-of-fold predictions (n, 3), each from a model that had not seen the record's vote.

    What they carry is not free of the student's held-out votes, though: the student of fold k learns from predictions
    on the other folds, by teachers that were trained on fold k among others. That may flatter its held-out score, by
    how much is not known. Only teachers trained anew for each k, without it, would be clean. nan where the teacher
    could not score a record.
    """
    if model.teacher is None:
        return None
    return predictions.read_predictions(run, records, model.teacher.model, "train")


def held_out_predictions(records: Records, of: Stage, folds: list[int]) -> Any:  # noqa: ANN401 - probabilities
    """Out-of-fold probabilities (n, 3) of the trained folds; nan for the records of the others."""
    _, fold_of = records.labels_and_folds()
    result = np.full((len(fold_of), len(LABELS)), np.nan)
    for fold in folds:
        table = fold_stage(of, fold).folder.read_table(HELD_OUT)
        result[table["row"].to_numpy()] = predictions.probabilities(table)
    return result
