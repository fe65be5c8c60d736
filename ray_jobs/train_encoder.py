"""Fine-tune encoders in stages on Ray Train, fold by fold, and predict with them.

Run as: python -m ray_jobs.train_encoder --config configs/encoder.yaml

The unit of resume is the epoch: after each, the first worker writes a checkpoint to models/<name>/fold-<k>/checkpoint.
A finished fold has its model, predictions, history.json and TensorBoard's event file in models/<name>/fold-<k>.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core import logs
from core.cli import Job, main
from featurize.tokens.packed_records import pack_records, training_packing
from infer.encoders import predict_with_encoder
from train.finetune.base_model import build_base, check_bases
from train.finetune.stages import model_stage
from train.finetune.train import fine_tune_folds
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_encoder(run: Run) -> list[StageResult]:
    """Make models/<name> and predictions/<name> for every model of finetune.encoders."""
    encoders = run.settings.finetune.encoders
    if not encoders:
        logs.info("train_encoder", "nothing to do: finetune.encoders is empty")
        return []
    check_bases(encoders)
    records = open_records(run)
    results = []
    for encoder in encoders:
        base, built = build_base(run, records, encoder)
        results += built
        results.append(pack_records(run, records, encoder.name, base, training_packing(encoder)))
        models = model_stage(run, records, encoder, base, "train_encoder")
        results.append(fine_tune_folds(run, records, encoder, base, models))
        results.append(predict_with_encoder(run, records, encoder, models))
    return results


JOB = Job("train_encoder", __doc__, train_encoder, reads=("seed", "data", "finetune"))

if __name__ == "__main__":
    sys.exit(main(JOB))
