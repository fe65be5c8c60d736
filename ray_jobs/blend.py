"""Blend the models' predictions, calibrate the blend, and write the submission.

Run as: python -m ray_jobs.blend --config configs/demo.yaml

All blends are fitted. `linear` is a weighted mean, `log` a weighted geometric mean, `learned` the better of the two.
`greedy` is ensemble selection, `equal` has equal weights, and `preset` has the published weights. Records with empty or
identical answers get fallback probabilities. Blends are scored with nested folds: nothing that is learned for a
record's blend has seen its vote.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from core.cli import Job, main
from core.ray_session import run_on_worker
from core.run import StageResult
from infer.ensemble import outputs
from infer.ensemble.analysis import analyze_submission, score_blends
from infer.ensemble.messages import blend_notes, warn_about_blend
from infer.ensemble.record_facts import read_record_facts
from infer.ensemble.stage import blend_recipes, blend_stage, read_models, read_training, require_blended_models
from metrics.baselines import class_prior_baseline
from votes.predictions import predictions_table
from votes.records import open_records
from votes.verdicts.joined import with_judges

if TYPE_CHECKING:
    from core.run import Run
    from core.stage import Stage
    from votes.records import Records


def blend(run: Run) -> list[StageResult]:
    """Write blend/: weights, analysis, the blends' predictions, and the submission for test records."""
    records = open_records(run)
    run = with_judges(run, records)
    require_blended_models(run)
    stage = blend_stage(run, records)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        warn_about_blend(run.settings)
        manifest = run_on_worker(run, _make_blend, run, records, stage)
    return [StageResult("blend", cached, manifest, blend_notes(run.settings, manifest))]


def _make_blend(run: Run, records: Records, stage: Stage) -> dict[str, Any]:
    """Fit and score the blends, and write them. Return the manifest."""
    started = time.monotonic()
    submission = run.settings.blend.submission
    facts = read_record_facts(records, records.splits)
    training = read_training(run, records, facts["train"])
    of_test = read_models(run, records, training.models, "test") if "test" in records.splits else None
    scored = score_blends(training, blend_recipes(run.settings), submission)
    prior = class_prior_baseline(records.votes())
    fitted = scored.blends[submission].fitted
    analysis = {
        **analyze_submission(scored, training, prior, seed=run.settings.seed),
        "fallbacks": outputs.describe_fallbacks(fitted.fallbacks, facts.get("test")),
    }
    metrics = outputs.blend_metrics(scored, training, prior)

    stage.begin()
    weights = {"submission": submission, **metrics, "blender": fitted.blender.to_json()}
    stage.folder.write_json(outputs.WEIGHTS, weights)
    stage.folder.write_json(outputs.ANALYSIS, analysis)
    written = {
        outputs.WEIGHTS,
        outputs.ANALYSIS,
        *outputs.write_oof_predictions(stage, records, training.votes, scored),
    }
    if of_test is not None:
        form = run.settings.blend.submission_format
        blended = outputs.write_test_predictions(stage, records, fitted.blender, of_test, facts["test"], form)
        ids = records.read("test", ["id"])["id"]
        stage.folder.write_table("test.parquet", predictions_table(ids, blended), stage.fingerprint)
        written |= {"test.parquet", "predictions.parquet", "submission.csv"}
    return stage.commit(
        rows={split: records.rows(split) for split in records.splits},
        metrics={**metrics, "analysis": analysis},
        keep=written,
        seconds=time.monotonic() - started,
    )


JOB = Job("blend", __doc__, blend, reads=("seed", "data", "blend"))

if __name__ == "__main__":
    sys.exit(main(JOB))
