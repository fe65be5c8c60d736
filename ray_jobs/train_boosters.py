"""Train LightGBM, XGBoost and the two-part linear model on the features, many folds at a time.

Run as: python -m ray_jobs.train_boosters --config configs/demo.yaml

The unit of resume is the fold: its worker writes model and predictions to models/<name>/fold-<k> and then a manifest,
and a fold with its manifest is not trained again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from train.boosters.train import train_models

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_boosters(run: Run) -> list[StageResult]:
    """Make models/<name> and predictions/<name> for every booster of the settings."""
    return train_models(run)


JOB = Job("train_boosters", __doc__, train_boosters, reads=("seed", "data", "featurize", "boosters", "tune"))

if __name__ == "__main__":
    sys.exit(main(JOB))
