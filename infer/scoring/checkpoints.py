"""Locate and check the checkpoints of language models, and pack records for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError
from core.model_cache import CheckpointRef
from core.registry import MODES
from core.stage import read_manifest
from core.storage import Folder
from demo import stages
from featurize.tokens.packed_records import Packing, training_packing
from infer.scoring.checkpoint import ScoringCheckpoint, ScoringModel
from infer.scoring.checkpoint_checks import check_checkpoint, require_vllm
from infer.scoring.checkpoint_files import checkpoint_fingerprint, merge_stage, merged_checkpoint, tokenizer_fingerprint
from train.finetune.base_model import pretrained_base
from train.finetune.checkpoints import MODEL_FOLDER, TRAINED_ON_FILE
from train.finetune.stages import model_stage

if TYPE_CHECKING:
    from core.run import Run, StageResult
    from core.settings.finetune import FinetunedLlm
    from core.settings.llm import Llm
    from votes.records import Records


def check_llms(run: Run) -> None:
    """Raise InputError for errors that would stop scoring later: no vLLM, or an unusable checkpoint."""
    for llm in run.settings.llms:
        check_llm(llm)


def check_llm(llm: Llm) -> None:
    """Raise InputError for errors that would stop scoring with one model later."""
    require_vllm(llm.gpus_per_worker)
    if llm.checkpoint is not None and llm.adapter is None and "://" not in llm.checkpoint:
        # How many outcomes the votes have is not known yet.
        check_checkpoint(llm.checkpoint, llm.max_tokens, llm.mode, llm.truncation, classes=None)


def scoring_model(run: Run, records: Records, llm: Llm) -> ScoringModel:
    """Return a language model with its checkpoints, of which none is copied or loaded yet.

    Raises InputError if they are not trained yet, or were trained on the very records of this run.
    """
    if llm.finetuned is not None:
        trained = run.require(f"models/{llm.finetuned}", "train_llm", records.fingerprint_of("train"))
        folder = run.folder / f"models/{llm.finetuned}"
        checkpoints = [
            ScoringCheckpoint(
                CheckpointRef((folder / f"fold-{fold}/{MODEL_FOLDER}").uri, f"{trained['fingerprint']}-{fold}"), fold
            )
            for fold in trained["folds"]
        ]
        return _packed_as_trained(run, llm, checkpoints)
    if llm.demo is not None:
        folder = stages.checkpoint_folder(run, llm)
        fingerprint = str((read_manifest(folder) or {})["fingerprint"])
        return _packed_by_mode(llm, ScoringCheckpoint(CheckpointRef(folder.uri, fingerprint)), [], records.classes)
    assert llm.checkpoint is not None
    _refuse_seen(llm, records)
    if llm.adapter is None:
        checkpoint = ScoringCheckpoint(CheckpointRef(llm.checkpoint, checkpoint_fingerprint(llm.checkpoint)))
        return _packed_by_mode(llm, checkpoint, [], records.classes)
    merged = merged_checkpoint(run, llm, records.classes)
    ref = CheckpointRef((run.folder / f"models/{llm.name}").uri, str(merged.manifest["fingerprint"]))
    checkpoint = ScoringCheckpoint(ref)
    return _packed_by_mode(llm, checkpoint, [merged], records.classes)


def planned_model(run: Run, records: Records, llm: Llm) -> ScoringModel:
    """Return `scoring_model`'s result without its work. A future checkpoint is replaced by its base model."""
    if llm.finetuned is None:
        return scoring_model(run, records, llm.model_copy(update={"adapter": None}))  # an adapter changes no shape
    try:
        return scoring_model(run, records, llm)
    except InputError:
        model = _finetuned(run, llm)
        base = pretrained_base(model.model)
        folds = range(run.settings.data.folds) if model.folds is None else sorted(set(model.folds))
        return _packed_as_trained(run, llm, [ScoringCheckpoint(base, fold) for fold in folds])


def finished_model(run: Run, records: Records, llm: Llm) -> ScoringModel:
    """Return a model of a finished run. Raises InputError unless its checkpoints are as the settings make them."""
    if llm.finetuned is not None:
        model = _finetuned(run, llm)
        model_stage(run, records, model, pretrained_base(model.model), "train_llm").require("train_llm")
    elif llm.demo is not None:
        stages.checkpoint_stage(run, llm, records.classes).require("score_llm")
    elif llm.adapter is not None:
        merge_stage(run, llm, records.classes).require("score_llm")
    return scoring_model(run, records, llm)


def _finetuned(run: Run, llm: Llm) -> FinetunedLlm:
    return next(model for model in run.settings.finetune.llms if model.name == llm.finetuned)


def _packed_as_trained(run: Run, llm: Llm, checkpoints: list[ScoringCheckpoint]) -> ScoringModel:
    """Return the records as training packed them."""
    model = _finetuned(run, llm)
    return ScoringModel(checkpoints, model.name, pretrained_base(model.model), training_packing(model), [])


def _packed_by_mode(llm: Llm, checkpoint: ScoringCheckpoint, results: list[StageResult], classes: int) -> ScoringModel:
    """Pack records with the checkpoint's own tokenizer, in the frame of the scoring mode."""
    from core.pretrained import load_tokenizer

    mode = MODES.get(llm.mode)
    frame = None if mode.fixed_packing else mode.frame(load_tokenizer(checkpoint.ref.header_only()), classes)
    location = checkpoint.ref.location
    tokenizer = checkpoint.ref.fingerprint if "://" in location else tokenizer_fingerprint(location)
    packing = Packing(llm.max_tokens, truncation=llm.truncation, frame=frame)
    return ScoringModel([checkpoint], llm.name, CheckpointRef(location, tokenizer), packing, results)


def _refuse_seen(llm: Llm, records: Records) -> None:
    """Raise InputError if the checkpoint or its adapter was trained on the very records that it would score."""
    for setting, location in (("checkpoint", llm.checkpoint), ("adapter", llm.adapter)):
        if location is None or not ("://" in location or Path(location).is_dir()):
            continue
        try:
            trained_on = Folder(location).read_json(TRAINED_ON_FILE)
        except (FileNotFoundError, ValueError):
            continue
        if set(records.vote_files) & set(trained_on.get("votes", [])):
            raise InputError(
                f"the checkpoint was trained on these records, all but fold {trained_on.get('fold')}, so its "
                "predictions for them say nothing about others",
                where=f"llms.{llm.name}.{setting}",
                fix="name the fine-tuned model with `finetuned` instead, which scores each record out-of-fold.",
            )
