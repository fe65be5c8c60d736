"""Predict new pairs with the features, models and blend of a finished run.

Run as: python -m ray_jobs.predict --config runs/demo/settings.json --set data.test=NEW.csv

Only data.test may differ from the settings of the finished run. `predict` checks all parts of the run before it
predicts anything, and changes none of them. Predictions go to predict/<name> of the run, a small run of its own, named
after the file of pairs and a digest of its contents. The unit of resume is the shard.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.lock import locked
from core.progress import say
from core.run import Run
from core.stage import require_finished
from featurize.tokens.packed_records import pack_records, packing_of
from infer import new_pairs
from infer.encoders import encoder_predictions_stage, predict_with_encoder
from infer.ensemble.outputs import load_blender
from infer.ensemble.stage import blend_stage
from infer.finished_models import refuse_changed, stamps_of, with_cheaper_models
from infer.scoring.checkpoints import check_llm, finished_model
from infer.scoring.score import score_llms, score_stage
from train.boosters.predict import finished_boosters, predict_boosters
from train.finetune.base_model import base_of_encoder, scratch_stage
from train.finetune.stages import finetune_fold_stage, folds_of, model_stage
from tune.stage import best_parameters
from votes.ingest import file_digests, find_input_files, ingest_files, records_stage
from votes.records import Records, open_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.run import StageResult
    from core.settings.finetune import FinetunedEncoder
    from core.settings.llm import Llm
    from infer.finished_models import Predictor


def predict(run: Run) -> list[StageResult]:
    """Make predict/<name>/ with every model's predictions, the blend's, and a submission."""
    settings, location = run.settings, new_pairs.require_location(run.settings)
    finished = Run(settings)  # --force never reaches the finished run
    records = open_records(finished)
    blended = require_finished(blend_stage(finished, records), "blend")
    files = find_input_files(location, "test")
    blender = load_blender(finished)
    models = new_pairs.weighted_models(blender)
    needed = with_cheaper_models(settings, models)
    stamps = stamps_of(finished, stamped := with_cheaper_models(settings, blender.models))
    predictors = _predictors(finished, records, needed)

    digests = file_digests("test", files)
    name = new_pairs.prediction_name(location, digests)
    new = Run(settings.model_copy(update={"run": (run.folder / f"predict/{name}").uri}), run.force)
    with locked(new.folder, "predict", run.take_over):
        stage = records_stage(new, {**new_pairs.training_digests(records), **digests})
        ingested = ingest_files(new, stage, {"test": location}, {"test": files})
        pairs = Records(new.folder / "records", ingested.manifest)
        results = [ingested, *(result for predictor in predictors for result in predictor(new, pairs))]
        if len(models) < len(blender.models) and not new_pairs.all_predicted(new, pairs, models):
            say("predict", f"some records have no prediction from {', '.join(models)}; the other models predict, too")
            others = [model for model in stamped if model not in needed]
            results += [result for each in _predictors(finished, records, others) for result in each(new, pairs)]
            models = list(blender.models)
        refuse_changed(finished, new, stamps, with_cheaper_models(settings, models))
        skipped = [model for model in blender.models if model not in (*models, *needed)]
        extra = {"name": name, "left_out": new_pairs.left_out_models(settings, blender, skipped)}
        used, blend = blender.only(tuple(models)), str(blended["fingerprint"])
        return [*results, new_pairs.blend_pairs(new, pairs, used, blend, extra)]


def _predictors(run: Run, records: Records, names: Sequence[str]) -> list[Predictor]:
    """Check models of a finished run. Return how they predict, cheaper models first.

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
    return [*predictors, _llms_predictor(run, records, llms)] if llms else predictors


def _encoder_predictor(run: Run, records: Records, encoder: FinetunedEncoder) -> Predictor:
    scratch = scratch_stage(run, records, encoder)
    if scratch is not None:
        require_finished(scratch, "train_encoder")
    base = base_of_encoder(encoder, scratch)
    models = model_stage(run, records, encoder, base, "train_encoder")
    folds = [finetune_fold_stage(models, fold) for fold in folds_of(run, encoder)]
    for stage in (models, *folds, encoder_predictions_stage(run, records, encoder, models)):
        require_finished(stage, "train_encoder")
    return lambda new, pairs: [
        pack_records(new, pairs, encoder.name, base, packing_of(encoder)),
        predict_with_encoder(new, pairs, encoder, models),
    ]


def _llms_predictor(run: Run, records: Records, llms: Sequence[Llm]) -> Predictor:
    models = {}
    for llm in llms:
        check_llm(llm)
        models[llm.name] = dataclasses.replace(finished_model(run, records, llm), results=[])
        require_finished(score_stage(run, records, llm, models[llm.name]), "score_llm")
    return lambda new, pairs: score_llms(new, pairs, llms, lambda llm: models[llm.name])


JOB = Job("predict", __doc__, predict, own_run=False, saves_settings=False, reads=("data",))

if __name__ == "__main__":
    sys.exit(main(JOB))
