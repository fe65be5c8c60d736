"""Run every configured job in order, skipping finished work; rate the models where the votes name them.

Run as: python -m ray_jobs.pipeline --config configs/demo.yaml
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from core import logs
from core.cli import Job, main, unwrap_input_error
from core.resources import request_table
from core.storage import CorruptFileError
from infer.ensemble.stage import require_blended_models
from infer.scoring.checkpoints import check_llms
from leaderboard.inputs import names_models
from train.finetune.base_model import check_bases
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult
    from core.settings.schema import Settings


def job_names(settings: Settings) -> list[str]:
    """Return the names of the configured jobs, in the order of their dependencies."""
    names = ["ingest"]
    if settings.boosters:
        names += ["featurize", *(["tune"] if settings.tune else []), "train_boosters"]
    llms = (["train_llm"] if settings.finetune.llms else []) + (["score_llm"] if settings.llms else [])
    encoders = ["train_encoder"] if settings.finetune.encoders else []
    # A model that learns from another model's predictions comes after it.
    teachers = {encoder.teacher.model for encoder in settings.finetune.encoders if encoder.teacher is not None}
    taught_by_llm = bool(teachers & {llm.name for llm in settings.llms})
    names += ["train_judges"] if settings.judges else []
    names += [*llms, *encoders] if taught_by_llm else [*encoders, *llms]
    return [*names, "blend", "report"]


def pipeline(run: Run) -> list[StageResult]:
    """Run the jobs one after another. The first failure ends the pipeline, and the same command resumes there. A
    corrupt file of the run is removed, and its job rebuilds it.
    """
    # Fail now rather than hours later.
    require_blended_models(run)
    check_llms(run)
    check_bases(run.settings.finetune.models)
    removed: set[str] = set()
    while True:
        try:
            return _run_jobs(run)
        except Exception as error:
            damaged = unwrap_input_error(error)
            if not isinstance(damaged, CorruptFileError) or damaged.where in removed:
                raise
            removed.add(damaged.where)
            logs.info("pipeline", f"{damaged.where} is {damaged.reason}; removed, rebuilding")
            run.folder.delete_inside(damaged.where)


def _run_jobs(run: Run) -> list[StageResult]:
    results: list[StageResult] = []
    names = job_names(run.settings)
    number = 0
    while number < len(names):
        name = names[number]
        number += 1
        logs.info("pipeline", f"{number}/{len(names)} {name}")
        # By name: the jobs import neither each other nor this one.
        job: Job = importlib.import_module(f"ray_jobs.{name}").JOB
        known = {result.stage for result in results}
        results += [result for result in job.work(run) if result.stage not in known]
        if name == "ingest" and names_models(open_records(run)):
            names.insert(names.index("report"), "leaderboard")
    return results


def dry_run(run: Run) -> str:
    """Return the resources that each job needs, as a table."""
    require_blended_models(run)
    return request_table(run.settings)


JOB = Job("pipeline", __doc__, pipeline, dry_run=dry_run, reads=())

if __name__ == "__main__":
    sys.exit(main(JOB))
