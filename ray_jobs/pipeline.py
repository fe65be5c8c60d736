"""Run every job that the configuration asks for, in order, skipping what is done.

Run as: python -m ray_jobs.pipeline --config configs/demo.yaml
"""

import sys
from collections.abc import Callable

from ray_jobs import cli
from ray_jobs.blend import blend, refuse_nothing
from ray_jobs.featurize import featurize
from ray_jobs.finetune import check_bases
from ray_jobs.ingest import ingest
from ray_jobs.llm_scorers import check as check_llms
from ray_jobs.progress import say
from ray_jobs.report import report
from ray_jobs.resources import table
from ray_jobs.run import Run, StageResult
from ray_jobs.score_llm import score_llm
from ray_jobs.storage import DamagedFileError
from ray_jobs.train_boosters import train_boosters
from ray_jobs.train_encoder import train_encoder
from ray_jobs.train_llm import train_llm
from ray_jobs.tune import tune

Job = Callable[[Run], list[StageResult]]


def jobs(run: Run) -> list[Job]:
    """The jobs that the settings ask for, in the order in which they need each other."""
    wanted: list[Job] = [ingest]
    if run.settings.boosters:
        wanted += [featurize, *([tune] if run.settings.tune else []), train_boosters]
    llms = ([train_llm] if run.settings.trained_llms else []) + ([score_llm] if run.settings.llms else [])
    encoders = [train_encoder] if run.settings.encoders else []
    # Who learns from another's predictions comes after it.
    teachers = {encoder.teacher.model for encoder in run.settings.encoders if encoder.teacher is not None}
    taught_by_llm = bool(teachers & {llm.name for llm in run.settings.llms})
    wanted += [*llms, *encoders] if taught_by_llm else [*encoders, *llms]
    return [*wanted, blend, report]


def pipeline(run: Run) -> list[StageResult]:
    """Run the jobs one after another; the first failure ends the pipeline, and the same line goes on from there.

    A file of the run that turns out to be damaged is removed, and what made it makes it again.
    """
    # What would end the run hours from now ends it here.
    refuse_nothing(run)
    check_llms(run)
    check_bases([*run.settings.encoders, *run.settings.trained_llms])
    removed: set[str] = set()
    while True:
        try:
            return _in_order(run)
        except Exception as error:
            damaged = cli.input_error(error)
            if not isinstance(damaged, DamagedFileError) or damaged.where in removed:
                raise
            removed.add(damaged.where)
            say("pipeline", f"{damaged.where} is {damaged.reason}; removed, to be made again")
            run.folder.delete_inside(damaged.where)


def _in_order(run: Run) -> list[StageResult]:
    results: list[StageResult] = []
    wanted = jobs(run)
    for number, job in enumerate(wanted, start=1):
        say("pipeline", f"{number}/{len(wanted)} {job.__name__}")
        results += job(run)
    return results


def _dry_run(run: Run) -> str:
    refuse_nothing(run)
    return table(run.settings)


if __name__ == "__main__":
    sys.exit(cli.main("pipeline", __doc__, pipeline, dry_run=_dry_run))
