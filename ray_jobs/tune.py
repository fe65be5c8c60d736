"""Search for boosters' parameters with Ray Tune; train_boosters then trains with the best ones.

Run as: python -m ray_jobs.tune --config configs/demo.yaml

The unit of resume is the trial. A finished trial has a file in tune/<booster>/trials and is not run again.
Trials run in parallel as far as the cluster has CPUs. ASHA stops trials that fall behind.
The best parameters are in tune/<booster>/best.json, and all trials in trials.csv.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from tune.stage import run_searches

if TYPE_CHECKING:
    from core.run import Run, StageResult


def tune(run: Run) -> list[StageResult]:
    """Write tune/<booster> for every search of the settings."""
    return run_searches(run)


JOB = Job("tune", __doc__, tune, reads=("seed", "data", "featurize", "boosters", "tune"))

if __name__ == "__main__":
    sys.exit(main(JOB))
