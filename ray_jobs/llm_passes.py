"""A checkpoint's predictions for records: which orders of which are asked for, and how the answers become one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preference.swap import swap_average
from ray_jobs.artifacts import Stage, fingerprint
from ray_jobs.llm_engines import score_units
from ray_jobs.llm_requests import (
    ORDERS,
    Answers,
    Packed,
    Probabilities,
    Wanted,
    least_sure,
    read_answers,
    tempered,
    units,
)
from ray_jobs.llm_scorers import Scorer
from ray_jobs.records import Records
from ray_jobs.run import Run
from ray_jobs.settings_llm import Llm
from ray_jobs.storage import Folder

Masks = Mapping[str, npt.NDArray[np.bool_]]  # by split, (n,)


@dataclass(frozen=True)
class Scoring:
    """What the checkpoints of one language model have in common."""

    run: Run
    records: Records
    llm: Llm
    stage: Stage
    tokens: Folder  # packed records
    packed: Packed


@dataclass(frozen=True)
class Outcome:
    """What one checkpoint gave: probabilities by split, nan where there are none, and what it took."""

    masks: Masks  # the records that it was asked about
    values: Mapping[str, Probabilities]
    reasons: Mapping[str, Mapping[int, str]]  # by split and row, of records that failed
    failed_files: list[str]  # shards with failed requests in them
    requests: int  # equal ones counted each
    distinct: int
    both: Mapping[str, tuple[Probabilities, Probabilities]]  # by split: of records asked in both orders, each (k, 3)
    tokens: int
    seconds: float


def score_records(scoring: Scoring, scorer: Scorer, masks: Masks) -> Outcome:
    """Score the records of the masks in one order or both, or in one and then the least sure in the other."""
    llm, numbers = scoring.llm, scoring.packed.requests
    wanted = {split: np.stack([mask, mask & (llm.swap == "both")], axis=1) for split, mask in masks.items()}
    answers = _answers(scoring, scorer, wanted)
    if llm.swap == "uncertain":
        for split, mask in masks.items():
            first = np.where(mask[:, None], answers.probabilities[numbers[split][:, 0]], np.nan)
            wanted[split][:, 1] = least_sure(first, llm.uncertain_share)
        answers = _answers(scoring, scorer, wanted)
    values = tempered(answers.probabilities, llm.temperature)
    result, failed, both = {}, {}, {}
    for split, asked in wanted.items():
        first, second = (np.where(asked[:, [n]], values[numbers[split][:, n]], np.nan) for n in range(len(ORDERS)))
        result[split] = np.where(asked[:, [1]], swap_average(first, second), first)
        in_both = asked[:, 1] & ~np.isnan(result[split][:, 0])
        both[split] = first[in_both], second[in_both]
        lost = np.flatnonzero(asked[:, 0] & np.isnan(result[split][:, 0])).tolist()
        failed[split] = {
            row: next(answers.reasons[n] for n in numbers[split][row].tolist() if n in answers.reasons) for row in lost
        }
    distinct, tokens = scoring.packed.count(wanted)
    return Outcome(
        masks=masks,
        values=result,
        reasons=failed,
        failed_files=answers.failed,
        requests=int(sum(asked.sum() for asked in wanted.values())),
        distinct=distinct,
        both=both,
        tokens=tokens,
        seconds=answers.seconds,
    )


def _answers(scoring: Scoring, scorer: Scorer, wanted: Wanted) -> Answers:
    of_stage = {name: scoring.stage.settings[name] for name in ("packing", "dtype", "mode", "engine")}
    model = fingerprint({"checkpoint": scorer.fingerprint, **of_stage})
    asked = units(scoring.packed, scoring.records, wanted, scorer.prefix, model)
    score_units(scoring.run, scoring.stage, asked, scoring.tokens, scoring.packed.tokens, scorer, scoring.llm)
    return read_answers(scoring.stage.folder, asked, len(scoring.packed.tokens))
