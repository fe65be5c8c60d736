"""Score training and test records with language models: vLLM actors under Ray Data.

Run as: python -m ray_jobs.score_llm --config configs/demo.yaml [--dry-run]

An external checkpoint scores every record, training and test records alike. For a model that train_llm fine-tuned in
this run, each fold's checkpoint scores its fold's training records and all test records. Test predictions are averaged
over folds. Each distinct text is scored once. As many models work at once as the cluster has room for. The unit of
resume is the shard. With --dry-run it only prints estimates of memory, time and cost.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from core import logs
from core.cli import Job, main
from demo import stages
from infer.scoring.checkpoints import check_llms, scoring_model
from infer.scoring.plan import plan_scoring
from infer.scoring.score import score_llms
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult


def score_llm(run: Run) -> list[StageResult]:
    """Make predictions/<name> for every language model of the settings."""
    if not run.settings.llms:
        logs.info("score_llm", "nothing to do: the settings name no llms")
        return []
    check_llms(run)
    records = open_records(run)
    built = stages.build_tiny_checkpoints(run, records.classes)
    return built + score_llms(run, records, run.settings.llms, functools.partial(scoring_model, run, records))


JOB = Job(
    "score_llm", __doc__, score_llm, dry_run=plan_scoring, dry_run_packs=True, reads=("seed", "data", "llms", "plan")
)

if __name__ == "__main__":
    sys.exit(main(JOB))
