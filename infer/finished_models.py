"""The models of a finished run, checked to be what its settings make, and ready to predict other records."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from core.run import Run, StageResult
from core.stage import Stage, require_finished
from featurize.tokens.packed_records import pack_records, packing_of
from infer.encoders import encoder_predictions_stage, predict_with_encoder
from infer.scoring.checkpoints import check_llm, finished_model
from infer.scoring.score import score_llms, score_stage
from train.boosters.predict import finished_boosters, predict_boosters
from train.finetune.base_model import base_of_encoder, scratch_stage
from train.finetune.stages import finetune_fold_stage, folds_of, model_stage
from votes.records import Records

if TYPE_CHECKING:
    from core.model_cache import CheckpointRef
    from core.settings.finetune import FinetunedEncoder
    from core.settings.llm import Llm
    from core.settings.schema import Settings
    from infer.scoring.checkpoint import ScoringModel
    from train.boosters.predict import BestParameters

# Makes predictions/<name> of new records, in the folder of another run that has the same settings.
Predict = Callable[[Run, Records], list[StageResult]]


def ready(run: Run, records: Records, names: Sequence[str], best_parameters: BestParameters) -> list[Predict]:
    """How some models of a finished run predict, in an order in which they find what they need of each other.

    Raises InputError with the first thing that is missing, or was made by other settings, from other records, or with
    another schema version.
    """
    settings = run.settings
    boosters = [booster for booster in settings.boosters if booster.name in names]
    encoders = [encoder for encoder in settings.finetune.encoders if encoder.name in names]
    llms = [llm for llm in settings.llms if llm.name in names]
    found: list[Predict] = []
    if boosters:
        found.append(
            functools.partial(predict_boosters, finished=finished_boosters(run, records, boosters, best_parameters))
        )
    found += [_ready_encoder(run, records, encoder) for encoder in encoders]
    if llms:
        found.append(_ready_llms(run, records, llms))
    return found


def with_cheaper(settings: Settings, names: Sequence[str]) -> list[str]:
    """The names, and those of the cheaper models of their cascades, in the order of the settings."""
    wanted = set(names)
    for llm in reversed(settings.llms):  # a cheaper model stands before the one that asks it
        if llm.name in wanted and llm.cascade is not None:
            wanted.add(llm.cascade.model)
    return [name for name in settings.models if name in wanted]


def _ready_encoder(run: Run, records: Records, encoder: FinetunedEncoder) -> Predict:
    job = "train_encoder"
    scratch = scratch_stage(run, records, encoder)
    if scratch is not None:
        require_finished(scratch, job)
    base = base_of_encoder(encoder, scratch)
    models = model_stage(run, records, encoder, base, job)
    folds = [finetune_fold_stage(models, fold) for fold in folds_of(run, encoder)]
    for stage in (models, *folds, encoder_predictions_stage(run, records, encoder, models)):
        require_finished(stage, job)
    return functools.partial(_predict_encoder, encoder=encoder, base=base, models=models)


def _predict_encoder(
    run: Run, records: Records, encoder: FinetunedEncoder, base: CheckpointRef, models: Stage
) -> list[StageResult]:
    packed = pack_records(run, records, encoder.name, base, packing_of(encoder))
    return [packed, predict_with_encoder(run, records, encoder, models)]


def _ready_llms(run: Run, records: Records, llms: Sequence[Llm]) -> Predict:
    models: dict[str, ScoringModel] = {}
    for llm in llms:
        check_llm(llm)
        models[llm.name] = finished_model(run, records, llm)
        require_finished(score_stage(run, records, llm, models[llm.name]), "score_llm")
    return functools.partial(_predict_llms, llms=llms, models=models)


def _predict_llms(
    run: Run, records: Records, llms: Sequence[Llm], models: Mapping[str, ScoringModel]
) -> list[StageResult]:
    return score_llms(run, records, llms, lambda llm: dataclasses.replace(models[llm.name], results=[]))
