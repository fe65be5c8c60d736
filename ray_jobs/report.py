"""Score every model and blend out-of-fold, and write the report.

Run as: python -m ray_jobs.report --config configs/demo.yaml

metrics.json holds every number that index.html shows; report_numbers.py says how the page marks them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from report.build import make_report

if TYPE_CHECKING:
    from core.run import Run, StageResult


def report(run: Run) -> list[StageResult]:
    """Make report/metrics.json and report/index.html from the finished blend and predictions."""
    return make_report(run)


JOB = Job("report", __doc__, report, saves_settings=False, reads=())

if __name__ == "__main__":
    sys.exit(main(JOB))
