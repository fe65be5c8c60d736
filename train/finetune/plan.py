"""train_llm --dry-run: what training the models of the settings would take, from the real records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.tables import GIB, plan_table
from featurize.tokens.packed_records import pack_records, packing_of, token_counts
from train.finetune.folds import base_of, check_bases, domain_settings, folds_of
from train.finetune.sampler import steps_of
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.finetune import TrainedLlm


def dry_run(run: Run) -> str:
    """The text that --dry-run prints. Packs the records, which training would do first too."""
    records = open_records(run)
    check_bases(run.settings.trained_llms)
    return "\n\n".join(_plan(run, records, model) for model in run.settings.trained_llms)


def _plan(run: Run, records: Records, model: TrainedLlm) -> str:
    from train.finetune.memory import flops_per_token, plan_memory, predicting_flops_per_token, shapes_of
    from train.finetune.networks import load_config

    base = base_of(model.model)
    pack_records(run, records, model.name, base, packing_of(model))
    counts = token_counts(run, records, model.name, "train")
    settings = domain_settings(run, model)
    config = load_config(base.outline())
    longest = int(counts.max())
    folds = folds_of(run, model)
    _, fold_of = records.labels_and_folds()
    trained_on = [fold_of != fold for fold in folds]
    shapes = shapes_of(counts[trained_on[0]], settings)
    memory = plan_memory(config, settings, shapes)
    tokens = int(np.mean([counts[rest].sum() for rest in trained_on])) * settings.orders
    steps = steps_of(int(np.mean([rest.sum() for rest in trained_on])), settings.records_per_step)
    epochs = sum(stage.epochs for stage in settings.stages)
    mean_length = int(np.average(counts, weights=counts))  # as a token sees it
    operations = flops_per_token(config, memory, settings, mean_length) * tokens * epochs
    # The held-out records are predicted after each epoch, in both orders, and once more when adapters are merged.
    held_out = int(np.mean([counts[~rest].sum() for rest in trained_on])) * 2
    predictions = epochs + (not settings.base_4bit)
    operations += predicting_flops_per_token(config, memory, mean_length) * held_out * predictions
    largest = " or ".join(f"{rows} sequences of {tokens:,} tokens" for rows, tokens in shapes)
    plan = run.settings.plan
    hours = operations / (plan.peak_tflops * 1e12 * plan.mfu) / 3600
    rows = [
        ("parameters", f"{memory.parameters:,}, of which {memory.trained:,} are trained"),
        ("records", f"{int(np.mean([rest.sum() for rest in trained_on])):,} a fold, {longest} tokens at most"),
        ("epoch", f"{steps:,} steps, {tokens:,} tokens ({settings.orders} orders)"),
        ("peak memory", f"{memory.peak / GIB:.2f} GiB on each worker, of which"),
        ("  weights", f"{memory.weights / GIB:.2f} GiB"),
        ("  gradients", f"{memory.gradients / GIB:.2f} GiB"),
        ("  optimizer", f"{memory.optimizer / GIB:.2f} GiB"),
        ("  activations", f"{memory.activations / GIB:.2f} GiB (micro-batches of up to {largest})"),
        ("operations", f"{operations:.3g} a fold"),
        (
            "GPU-hours",
            f"{hours:.2f} a fold, {hours * len(folds):.2f} in all, at {plan.mfu:.0%} of "
            f"{plan.peak_tflops:g} TFLOP/s",
        ),
        ("cost", f"{hours * len(folds) * plan.price_per_gpu_hour:.2f} at {plan.price_per_gpu_hour:g} a GPU-hour"),
    ]
    return plan_table(f"{model.name} ({model.model}), folds {', '.join(map(str, folds))}", rows)
