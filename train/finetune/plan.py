"""Estimate memory, time and cost of training from the real records, for train_llm --dry-run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.tables import GIB, plan_table
from featurize.tokens.packed_records import pack_records, token_counts, training_packing
from train.finetune.base_model import check_bases, pretrained_base
from train.finetune.sampler import steps_per_epoch
from train.finetune.stages import trained_folds
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.finetune import FinetunedLlm


def training_plan(run: Run) -> str:
    """Return the text that --dry-run prints. Packs the records, which is the first step of training too."""
    records = open_records(run)
    check_bases(run.settings.finetune.llms)
    return "\n\n".join(_plan(run, records, model) for model in run.settings.finetune.llms)


def _plan(run: Run, records: Records, model: FinetunedLlm) -> str:
    from train.finetune.memory import flops_per_token, microbatch_shapes, plan_memory, predicting_flops_per_token
    from train.finetune.networks import load_config

    base = pretrained_base(model.model)
    pack_records(run, records, model.name, base, training_packing(model))
    counts = token_counts(run, records, model.name, "train")
    config = load_config(base.header_only())
    longest = int(counts.max())
    folds = trained_folds(run, model)
    fold_of = records.folds()
    trained_on = [fold_of != fold for fold in folds]
    shapes = microbatch_shapes(counts[trained_on[0]], model, run.settings.seed)
    memory = plan_memory(config, model, shapes)
    tokens = int(np.mean([counts[mask].sum() for mask in trained_on])) * model.orders
    steps = steps_per_epoch(int(np.mean([mask.sum() for mask in trained_on])), model.global_batch_size)
    epochs = sum(stage.epochs for stage in model.stages)
    mean_length = int(np.average(counts, weights=counts))  # weighted by tokens
    operations = flops_per_token(config, memory, model, mean_length) * tokens * epochs
    # The held-out records are predicted after each epoch, in both orders, and once more when adapters are merged.
    held_out = int(np.mean([counts[~mask].sum() for mask in trained_on])) * 2
    predictions = epochs + (not model.is_4bit)
    operations += predicting_flops_per_token(config, memory, mean_length) * held_out * predictions
    largest = " or ".join(f"{rows} sequences of {tokens:,} tokens" for rows, tokens in shapes)
    plan = run.settings.plan
    hours = operations / (plan.peak_tflops * 1e12 * plan.mfu) / 3600
    rows = [
        ("parameters", f"{memory.parameters:,}, of which {memory.trained:,} are trained"),
        ("records", f"{int(np.mean([mask.sum() for mask in trained_on])):,} a fold, {longest} tokens at most"),
        ("epoch", f"{steps:,} steps, {tokens:,} tokens ({model.orders} orders)"),
        ("peak memory", f"{memory.peak / GIB:.2f} GiB on each worker, of which"),
        ("  weights", f"{memory.weights / GIB:.2f} GiB"),
        ("  gradients", f"{memory.gradients / GIB:.2f} GiB"),
        ("  optimizer", f"{memory.optimizer / GIB:.2f} GiB"),
        ("  activations", f"{memory.activations / GIB:.2f} GiB (microbatches of up to {largest})"),
        ("operations", f"{operations:.3g} a fold"),
        (
            "GPU-hours",
            f"{hours:.2f} a fold, {hours * len(folds):.2f} in all, at {plan.mfu:.0%} of {plan.peak_tflops:g} TFLOP/s",
        ),
        ("cost", f"{hours * len(folds) * plan.price_per_gpu_hour:.2f} at {plan.price_per_gpu_hour:g} a GPU-hour"),
    ]
    return plan_table(f"{model.name} ({model.model}), folds {', '.join(map(str, folds))}", rows)
