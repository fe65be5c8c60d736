"""Open the models of a finished run as predictors of new pairs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from featurize.tokens.packed_records import pack_records, training_packing
from infer.encoders import encoder_predictions_stage, predict_with_encoder
from infer.judges.models import judges_predictor
from infer.scoring.checkpoints import check_llm, finished_model
from infer.scoring.score import score_llms, score_stage
from train.boosters.predict import finished_boosters, predict_boosters
from train.finetune.base_model import encoder_base, scratch_stage
from train.finetune.stages import finetune_fold_stage, model_stage, trained_folds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.run import Run
    from core.settings.finetune import FinetunedEncoder
    from core.settings.llm import Llm
    from infer.finished_models import Predictor
    from train.boosters.predict import BestParametersFinder
    from votes.records import Records


def open_predictors(
    run: Run, records: Records, names: Sequence[str], best_parameters: BestParametersFinder
) -> list[Predictor]:
    """Return the predictors of some models of a finished run, cheaper models first.

    Raises InputError with the first part that is missing, or was built with other settings, records or schema version.
    """
    boosters = [booster for booster in run.settings.boosters if booster.name in names]
    encoders = [encoder for encoder in run.settings.finetune.encoders if encoder.name in names]
    llms = [llm for llm in run.settings.llms if llm.name in names]
    predictors: list[Predictor] = []
    if boosters:
        trained = finished_boosters(run, records, boosters, best_parameters)
        predictors.append(lambda new, pairs: predict_boosters(new, pairs, trained))
    predictors += [_encoder_predictor(run, records, encoder) for encoder in encoders]
    judges = [name for name in run.settings.judge_models if name in names]
    predictors += [judges_predictor(run, records, judges)] if judges else []
    return [*predictors, _llms_predictor(run, records, llms)] if llms else predictors


def _encoder_predictor(run: Run, records: Records, encoder: FinetunedEncoder) -> Predictor:
    scratch = scratch_stage(run, records, encoder)
    if scratch is not None:
        scratch.require("train_encoder")
    base = encoder_base(encoder, scratch)
    models = model_stage(run, records, encoder, base, "train_encoder")
    folds = [finetune_fold_stage(models, fold) for fold in trained_folds(run, encoder)]
    for stage in (models, *folds, encoder_predictions_stage(run, records, encoder, models)):
        stage.require("train_encoder")
    return lambda new, pairs: [
        pack_records(new, pairs, encoder.name, base, training_packing(encoder)),
        predict_with_encoder(new, pairs, encoder, models),
    ]


def _llms_predictor(run: Run, records: Records, llms: Sequence[Llm]) -> Predictor:
    models = {}
    for llm in llms:
        check_llm(llm)
        models[llm.name] = dataclasses.replace(finished_model(run, records, llm), results=[])
        score_stage(run, records, llm, models[llm.name]).require("score_llm")
    return lambda new, pairs: score_llms(new, pairs, llms, lambda llm: models[llm.name])
