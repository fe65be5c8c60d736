"""Fine-tune language models with LoRA on Ray Train, fold by fold.

Run as: python -m ray_jobs.train_llm --config configs/llm.yaml [--dry-run]

score_llm loads the folders models/<name>/fold-<k>/model: name the model in an entry of `llms`. The unit of resume is
the epoch. --dry-run trains nothing; it prints memory, time and cost of the training.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core import logs
from core.cli import Job, main
from featurize.tokens.packed_records import pack_records, training_packing
from train.finetune.base_model import check_bases, pretrained_base
from train.finetune.plan import training_plan
from train.finetune.stages import model_stage
from train.finetune.train import fine_tune_folds
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_llm(run: Run) -> list[StageResult]:
    """Make models/<name> for every model of finetune.llms."""
    llms = run.settings.finetune.llms
    if not llms:
        logs.info("train_llm", "nothing to do: finetune.llms is empty")
        return []
    records = open_records(run)
    check_bases(llms)
    results = []
    for llm in llms:
        base = pretrained_base(llm.model)
        results.append(pack_records(run, records, llm.name, base, training_packing(llm)))
        models = model_stage(run, records, llm, base, "train_llm")
        results.append(fine_tune_folds(run, records, llm, base, models))
    return results


JOB = Job(
    "train_llm",
    __doc__,
    train_llm,
    dry_run=training_plan,
    dry_run_packs=True,
    reads=("seed", "data", "finetune", "plan"),
)

if __name__ == "__main__":
    sys.exit(main(JOB))
