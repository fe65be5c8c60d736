"""Predict new pairs with a finished run: with its features, models and blend, none of which change.

Run as: python -m ray_jobs.predict --config runs/demo/settings.json --set data.test=NEW.csv

All settings but data.test are those that the run was made with. What it made is checked before anything is predicted.
What is predicted goes to predict/<name> of the run, a small run of its own whose name is that of the pairs' file with a
digest of its contents. The unit of resume is the shard.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from infer.predict import predict_new
from tune.stage import best_parameters

if TYPE_CHECKING:
    from core.run import Run, StageResult


def predict(run: Run) -> list[StageResult]:
    """Make predict/<name>/ with every model's predictions, the blend's, and a submission."""
    return predict_new(run, best_parameters)


JOB = Job("predict", __doc__, predict, own_run=False, saves_settings=False, reads=("data",))

if __name__ == "__main__":
    sys.exit(main(JOB))
