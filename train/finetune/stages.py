"""Define the stages of fine-tuned models, and read their out-of-fold predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.stage import Stage
from featurize.tokens.packed_records import training_packing
from train.finetune.checkpoints import HELD_OUT_FILE
from votes import predictions

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.model_cache import CheckpointRef
    from core.run import Run
    from core.settings.finetune import FinetunedModel
    from votes.records import Records

VERSION = 1  # part of the fingerprint: raise it when the same settings train another model
# Settings that decide where and how fast a model is trained, but not its parameters; or that are inputs of the stage.
_NOT_THE_MODEL = {
    "name", "folds", "folds_at_once", "num_workers", "cpus_per_worker", "gpus_per_worker", "model", "scratch",
}  # fmt: skip


def trained_folds(run: Run, model: FinetunedModel) -> list[int]:
    """Return the folds that are trained, in ascending order."""
    return sorted(model.folds) if model.folds is not None else list(range(run.settings.data.folds))


def model_stage(run: Run, records: Records, model: FinetunedModel, base: CheckpointRef, job: str) -> Stage:
    """Return the stage of models/<name>. All its folds' models share its fingerprint."""
    inputs = {"records": records.fingerprint_of("train"), "base": base.fingerprint}
    if model.teacher is not None:
        inputs["teacher"] = predictions.model_fingerprints(run, records, [model.teacher.model])[model.teacher.model]
    return Stage(
        f"{job}/{model.name}",
        run.folder / f"models/{model.name}",
        settings={
            "seed": run.settings.seed,
            "version": VERSION,
            "packing": training_packing(model).fingerprint,
            **model.model_dump(mode="json", exclude=_NOT_THE_MODEL),
        },
        inputs=inputs,
    )


def finetune_fold_stage(model: Stage, fold: int) -> Stage:
    """Return the stage of one fold of a model."""
    return Stage(
        f"{model.name}/fold-{fold}", model.folder / f"fold-{fold}", {"fold": fold}, {"models": model.fingerprint}
    )


def out_of_fold_predictions(records: Records, model: Stage, folds: list[int]) -> Probabilities:
    """Return the out-of-fold probabilities (n, k) of these folds. The records of other folds are nan."""
    result = np.full((records.rows("train"), records.classes), np.nan)
    for fold in folds:
        table = finetune_fold_stage(model, fold).folder.read_table(HELD_OUT_FILE)
        result[table["row"].to_numpy()] = predictions.probabilities_from_table(table)
    return result
