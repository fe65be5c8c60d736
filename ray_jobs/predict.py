"""Predict new pairs with the features, models and blend of a finished run.

Run as: python -m ray_jobs.predict --config runs/demo/settings.json --set data.test=NEW.csv

Only data.test may differ from the settings of the finished run, and the tables in `judges` and `features`, which may
be those of the new pairs. `predict` checks all parts of the run before it predicts anything, and changes none of them.
Predictions go to predict/<name> of the run, a small run of its own. Its name is the file's stem with a digest of its
contents and of these tables. The unit of resume is the shard.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from core import logs
from core.cli import Job, main
from core.lock import run_lock
from core.run import Run
from core.settings.features import EXTERNAL
from featurize.external import make_external, require_external
from infer import new_pairs
from infer.ensemble.outputs import load_blender
from infer.ensemble.stage import blend_stage
from infer.finished_models import as_trained, check_unchanged, read_stamps, with_cheaper_models
from infer.predictors import open_predictors
from tune.stage import best_parameters
from votes.ingest import file_digests, find_vote_files, ingest_files, records_stage
from votes.records import Records, open_records
from votes.verdicts.join import Trained
from votes.verdicts.joined import open_verdicts, with_judges
from votes.verdicts.stage import make_verdicts

if TYPE_CHECKING:
    from core.run import StageResult


def predict(run: Run) -> list[StageResult]:
    """Make predict/<name>/ with every model's predictions, the blend's, and a submission."""
    location = new_pairs.require_location(run.settings)
    finished = as_trained(run)
    records = open_records(finished)
    finished = with_judges(finished, records)
    settings = finished.settings
    blended = blend_stage(finished, records).require("blend")
    files = find_vote_files(run, location, "test")
    blender = load_blender(finished)
    models = new_pairs.weighted_models(blender)
    needed = with_cheaper_models(settings, models)
    stamps = read_stamps(finished, stamped := with_cheaper_models(settings, blender.models))
    predictors = open_predictors(finished, records, needed, best_parameters)

    digests = file_digests("test", files)
    tables: dict[str, list[Any]] = {"judges": run.settings.judges, "features": run.settings.features}
    name = new_pairs.prediction_name(location, digests, settings, tables)
    new = Run(settings.model_copy(update={"run": (run.folder / f"predict/{name}").uri, **tables}), run.force)
    with run_lock(new.folder, "predict", run.force_unlock):
        stage = records_stage(new, {**new_pairs.training_digests(records), **digests})
        ingested = ingest_files(new, stage, {"test": location}, {"test": files}, records.outcomes)
        pairs = Records(new.folder / "records", ingested.manifest)
        joined = _join_tables(finished, records, new, pairs)
        results = [ingested, *joined, *(result for predictor in predictors for result in predictor(new, pairs))]
        if len(models) < len(blender.models) and not new_pairs.every_record_predicted(new, pairs, models):
            logs.info("predict", f"some records lack predictions of {', '.join(models)}; the other models predict, too")
            others = [model for model in stamped if model not in needed]
            results += [
                result
                for predictor in open_predictors(finished, records, others, best_parameters)
                for result in predictor(new, pairs)
            ]
            models = list(blender.models)
        check_unchanged(finished, new, stamps, with_cheaper_models(settings, models))
        skipped = [model for model in blender.models if model not in (*models, *needed)]
        used, blend = blender.only(tuple(models)), str(blended["fingerprint"])
        extra = {
            "name": name,
            "left_out": new_pairs.log_excluded_models(settings, blender, skipped),
            "without_judges": new_pairs.judges_left_out(new, pairs, used, blended["metrics"]["analysis"]),
        }
        return [*results, new_pairs.blend_new_pairs(new, pairs, used, blend, extra)]


def _join_tables(finished: Run, records: Records, new: Run, pairs: Records) -> list[StageResult]:
    """Join the tables of judges and of numbers to the new pairs."""
    results, settings = [], finished.settings
    verdicts = open_verdicts(finished, records)
    if verdicts is None and new.settings.judges:
        logs.warning("predict", "the verdicts are not used: the run has no judges")
    if verdicts is not None:
        trained = Trained.of(records, settings.judges, verdicts.manifest, [*verdicts.judges.values()])
        results.append(make_verdicts(new, pairs, trained))
    if EXTERNAL in settings.featurize.names:
        external = require_external(finished)
        trained = Trained.of(records, settings.features, external)
        results.append(make_external(new, pairs, trained, external["metrics"]["columns"]))
    return results


JOB = Job("predict", __doc__, predict, own_run=False, saves_settings=False, reads=("data", "judges", "features"))

if __name__ == "__main__":
    sys.exit(main(JOB))
