"""score_llm --dry-run: what scoring with the language models of the settings would take, from the real records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.tables import plan_table, size_text
from demo import stages
from featurize.tokens.packed_records import pack_records
from infer.scoring.checkpoints import check, packing, planned_scorers
from infer.scoring.engine_settings import LlmSettings, effective_dtype
from infer.scoring.requests import read_packed
from votes.records import Records, open_records

if TYPE_CHECKING:
    from core.run import Run
    from core.settings.llm import Llm


def dry_run(run: Run) -> str:
    """The text that --dry-run prints. Packs the records, which scoring would do first too."""
    check(run)
    records = open_records(run)
    stages.make_checkpoints(run)
    return "\n\n".join(_plan(run, records, llm) for llm in run.settings.llms)


def _plan(run: Run, records: Records, llm: Llm) -> str:
    from infer.scoring.size import load_shape
    from train.finetune.flops import cache_bytes, forward_operations

    found = planned_scorers(run, records, llm)
    name, base, how = packing(run, llm, found[0])
    pack_records(run, records, name, base, how)
    packed = read_packed(run.folder / f"tokens/{name}", records)
    config, parameters = load_shape(found[0].outline(), llm.mode)

    # Of every record one order, and of a share of them the other; a cascade passes on a share of the records. Of a
    # model trained by folds, each checkpoint scores the training records of its fold and all others.
    second = {"none": 0.0, "both": 1.0, "uncertain": llm.uncertain_share}[llm.swap]
    passed_on = 1.0 if llm.cascade is None else llm.cascade.share
    times = {split: 1 if split == "train" else len(found) for split in records.splits}
    asked = sum(records.rows(split) * times[split] for split in records.splits) * (1 + second) * passed_on
    wanted = {split: np.repeat([[True, llm.swap != "none"]], records.rows(split), axis=0) for split in records.splits}
    distinct, tokens_of_distinct = packed.count(wanted)
    all_requests = sum(int(mask.sum()) for mask in wanted.values())
    requests = asked * distinct / all_requests
    mean = tokens_of_distinct / distinct
    tokens = requests * mean
    # As a token sees it: long requests have more tokens than short ones.
    lengths = packed.tokens[np.unique(np.concatenate([packed.requests[split].ravel() for split in wanted]))]
    operations = forward_operations(config, parameters, float(np.average(lengths, weights=lengths))) * tokens
    # The checkpoint's own precision is half, as a rule.
    size = 4 if effective_dtype(llm.dtype, llm.gpus_per_replica) == "float32" else 2
    batches = LlmSettings.batches
    in_flight = batches * llm.batch_size * mean
    plan = run.settings.plan
    devices = {0: "the CPUs", 1: "the GPU"}.get(llm.gpus_per_replica, f"the {llm.gpus_per_replica} GPUs")
    hours = operations / (plan.peak_tflops * 1e12 * plan.mfu) / 3600
    rows = [
        ("parameters", f"{parameters:,}"),
        ("weights", f"{size_text(parameters * size)} over {devices} of each replica"),
        (
            "cache",
            f"{size_text(cache_bytes(config, size) * in_flight)} for {batches} batches of {llm.batch_size} requests "
            f"({size_text(cache_bytes(config, size))} a token)",
        ),
        ("requests", f"{requests:,.0f} ({asked - requests:,.0f} more have the same text)"),
        ("tokens", f"{tokens:,.0f}, {mean:,.0f} a request, {int(lengths.max())} at most"),
        ("operations", f"{operations:.3g}"),
    ]
    if llm.gpus_per_replica:
        rows += [
            ("GPU-hours", f"{hours:.2f} at {plan.mfu:.0%} of {plan.peak_tflops:g} TFLOP/s"),
            ("cost", f"{hours * plan.price_per_gpu_hour:.2f} at {plan.price_per_gpu_hour:g} a GPU-hour"),
        ]
    else:
        rows.append(("time", "not reckoned: it is set to run on CPUs (gpus_per_replica: 0)"))
    return plan_table(f"{llm.name} ({llm.checkpoint or llm.trained or 'demo'}), {llm.mode}, swap: {llm.swap}", rows)
