"""Train boosters on the features, many folds at a time: LightGBM, XGBoost, linear models, and engines of plugins.

Run as: python -m ray_jobs.train_boosters --config configs/demo.yaml

The unit of resume is the fold. Its worker writes model and predictions to models/<name>/fold-<k>, then a manifest. A
fold with a manifest is not trained again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from train.boosters.sources import training_inputs
from train.boosters.train import train_models
from tune.stage import search_result

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_boosters(run: Run) -> list[StageResult]:
    """Write models/<name> and predictions/<name> for every booster of the settings."""
    inputs = training_inputs(run)
    # All searches first: a missing one must not be noticed after other boosters have been trained.
    searched = {booster.name: search_result(run, booster, inputs.fingerprints) for booster in run.settings.boosters}
    return train_models(run, inputs, searched)


JOB = Job("train_boosters", __doc__, train_boosters, reads=("seed", "data", "featurize", "boosters", "tune"))

if __name__ == "__main__":
    sys.exit(main(JOB))
