"""Calibrate judges' verdicts inside the folds, and predict with them.

Run as: python -m ray_jobs.train_judges --config configs/demo.yaml --set 'judges=[{path: verdicts.csv}]'

Each judge of the tables becomes a model of the run, and several judges together one more, `panel`. The verdicts, joined
to the records, are in judges/; rows that did not join are in judges/quarantine.parquet.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core import logs
from core.cli import Job, main
from infer.judges.models import make_judge_predictions
from votes.records import open_records
from votes.verdicts.joined import open_verdicts, with_judges
from votes.verdicts.stage import make_verdicts

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_judges(run: Run) -> list[StageResult]:
    """Make judges/, models/<judge> and predictions/<judge>."""
    if not run.settings.judges:
        logs.info("train_judges", "nothing to do: judges is empty")
        return []
    records = open_records(run)
    joined = make_verdicts(run, records)
    run = with_judges(run, records)
    verdicts = open_verdicts(run, records)
    return [joined, *(make_judge_predictions(run, records, verdicts) if verdicts is not None else [])]


JOB = Job("train_judges", __doc__, train_judges, reads=("data", "judges"))

if __name__ == "__main__":
    sys.exit(main(JOB))
