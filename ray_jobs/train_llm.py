"""Fine-tune language models with LoRA on Ray Train, fold by fold.

Run as: python -m ray_jobs.train_llm --config configs/llm.yaml [--dry-run]

What it leaves in models/<name>/fold-<k>/model is what score_llm loads; name it there with `trained`. The unit of resume
is the epoch. With --dry-run nothing is trained: it says what training would take.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.progress import say
from featurize.tokens.packed_records import pack_records, packing_of
from train.finetune.folds import base_of, check_bases, fine_tune_folds, model_stage
from train.finetune.plan import dry_run
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run, StageResult


def train_llm(run: Run) -> list[StageResult]:
    """Make models/<name> for every model of trained_llms."""
    if not run.settings.trained_llms:
        say("train_llm", "nothing to do: the settings name no trained_llms")
        return []
    records = open_records(run)
    check_bases(run.settings.trained_llms)
    results = []
    for model in run.settings.trained_llms:
        base = base_of(model.model)
        results.append(pack_records(run, records, model.name, base, packing_of(model)))
        stage = model_stage(run, records, model, base, "train_llm")
        results.append(fine_tune_folds(run, records, model, base, stage))
    return results


JOB = Job(
    "train_llm", __doc__, train_llm, dry_run=dry_run, dry_run_packs=True, reads=("seed", "data", "trained_llms", "plan")
)

if __name__ == "__main__":
    sys.exit(main(JOB))
