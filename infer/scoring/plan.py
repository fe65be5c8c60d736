"""Estimate memory, time and cost of scoring from the real records, for score_llm --dry-run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.tables import format_bytes, plan_table
from demo import stages
from featurize.tokens.packed_records import pack_records
from infer.scoring.checkpoints import check_llms, planned_model
from infer.scoring.job import CONCURRENT_BATCHES
from infer.scoring.requests import deduplicate_requests
from infer.scoring.size import load_config_and_size
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.llm import Llm


def plan_scoring(run: Run) -> str:
    """Return the text that --dry-run prints. Packs the records, which scoring would do first too."""
    check_llms(run)
    records = open_records(run)
    stages.build_tiny_checkpoints(run, records.classes)
    return "\n\n".join(_plan(run, records, llm) for llm in run.settings.llms)


def _plan(run: Run, records: Records, llm: Llm) -> str:
    from train.finetune.flops import forward_flops, kv_cache_bytes

    model = planned_model(run, records, llm)
    pack_records(run, records, model.tokens_stage, model.tokenizer, model.packing)
    index = deduplicate_requests(run.folder / f"tokens/{model.tokens_stage}", records)
    config, parameters = load_config_and_size(model.checkpoints[0].ref.header_only(), llm.mode)

    # Every record is scored in one order, and a share of them in the other. A cascade passes on a share of the records.
    # With a checkpoint for each fold, each scores its fold's training records and all other splits.
    second = {"none": 0.0, "both": 1.0, "uncertain": llm.uncertain_share}[llm.swap]
    passed_on = 1.0 if llm.cascade is None else llm.cascade.share
    times = {split: 1 if split == "train" else len(model.checkpoints) for split in records.splits}
    total = sum(records.rows(split) * times[split] for split in records.splits) * (1 + second) * passed_on
    masks = {split: np.repeat([[True, llm.swap != "none"]], records.rows(split), axis=0) for split in records.splits}
    distinct, tokens_of_distinct = index.count(masks)
    all_requests = sum(int(mask.sum()) for mask in masks.values())
    requests = total * distinct / all_requests
    mean = tokens_of_distinct / distinct
    tokens = requests * mean
    # As a token sees it: long requests have more tokens than short ones.
    lengths = index.token_counts[np.unique(np.concatenate([index.numbers[split].ravel() for split in masks]))]
    operations = forward_flops(config, parameters, float(np.average(lengths, weights=lengths))) * tokens
    # The checkpoint's own precision is half, as a rule.
    size = 4 if llm.effective_dtype == "float32" else 2
    in_flight = CONCURRENT_BATCHES * llm.batch_size * mean
    plan = run.settings.plan
    devices = {0: "the CPUs", 1: "the GPU"}.get(llm.gpus_per_worker, f"the {llm.gpus_per_worker} GPUs")
    hours = operations / (plan.peak_tflops * 1e12 * plan.mfu) / 3600
    token_cache = kv_cache_bytes(config, size)
    rows = [
        ("parameters", f"{parameters:,}"),
        ("weights", f"{format_bytes(parameters * size)} over {devices} of each engine"),
        (
            "cache",
            f"{format_bytes(token_cache * in_flight)} for {CONCURRENT_BATCHES} batches of {llm.batch_size} requests "
            f"({format_bytes(token_cache)} a token)",
        ),
        ("requests", f"{requests:,.0f} ({total - requests:,.0f} more have the same text)"),
        ("tokens", f"{tokens:,.0f}, {mean:,.0f} a request, {int(lengths.max())} at most"),
        ("operations", f"{operations:.3g}"),
    ]
    if llm.gpus_per_worker:
        rows += [
            ("GPU-hours", f"{hours:.2f} at {plan.mfu:.0%} of {plan.peak_tflops:g} TFLOP/s"),
            ("cost", f"{hours * plan.price_per_gpu_hour:.2f} at {plan.price_per_gpu_hour:g} a GPU-hour"),
        ]
    else:
        rows.append(("time", "not estimated: it runs on CPUs (gpus_per_worker: 0)"))
    return plan_table(f"{llm.name} ({llm.checkpoint or llm.finetuned or 'demo'}), {llm.mode}, swap: {llm.swap}", rows)
