"""Fine-tune encoders in stages on Ray Train, fold by fold, and predict with them.

Run as: python -m ray_jobs.train_encoder --config configs/encoder.yaml

The unit of resume is the epoch: after each, the first worker writes a checkpoint to models/<name>/fold-<k>/checkpoint.
A finished fold has its model, predictions, history.json and TensorBoard's event file in models/<name>/fold-<k>.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.progress import say
from featurize.tokens.packed_records import pack_records, packing_of
from infer.encoders import base_and_builds, predict_records
from train.finetune.folds import check_bases, fine_tune_folds, model_stage
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_encoder(run: Run) -> list[StageResult]:
    """Make models/<name> and predictions/<name> for every encoder of the settings."""
    if not run.settings.encoders:
        say("train_encoder", "nothing to do: the settings name no encoders")
        return []
    check_bases(run.settings.encoders)
    records = open_records(run)
    results = []
    for encoder in run.settings.encoders:
        base, built = base_and_builds(run, records, encoder)
        results += built
        results.append(pack_records(run, records, encoder.name, base, packing_of(encoder)))
        of = model_stage(run, records, encoder, base, "train_encoder")
        results.append(fine_tune_folds(run, records, encoder, base, of))
        results.append(predict_records(run, records, encoder, of))
    return results


JOB = Job("train_encoder", __doc__, train_encoder, reads=("seed", "data", "encoders"))

if __name__ == "__main__":
    sys.exit(main(JOB))
