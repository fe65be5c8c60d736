"""A checkpoint's predictions for records: which orders of which are asked for, and how the answers become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.progress import say
from core.stage import Stage, fingerprint
from infer.scoring.engines import Scoring, score_units
from infer.scoring.requests import (
    ORDERS,
    Answers,
    Probabilities,
    Wanted,
    least_sure,
    read_answers,
    tempered,
    units,
)
from votes.swap import swap_average

if TYPE_CHECKING:
    from infer.scoring.checkpoints import Scorer

_FEW_KILLERS = 3
Masks = Mapping[str, npt.NDArray[np.bool_]]  # by split, (n,)


@dataclass(frozen=True)
class Outcome:
    """What one checkpoint gave: probabilities by split, nan where there are none, and what it took."""

    masks: Masks  # the records that it was asked about
    values: Mapping[str, Probabilities]
    reasons: Mapping[str, Mapping[int, str]]  # by split and row, of records that failed
    requests: int  # equal ones counted each
    distinct: int
    both: Mapping[str, tuple[Probabilities, Probabilities]]  # by split: of records asked in both orders, each (k, 3)
    tokens: int
    seconds: float


def score_records(scoring: Scoring, scorers: Sequence[Scorer], masks: Sequence[Masks]) -> list[Outcome]:
    """Score with each checkpoint the records of its masks: in one order or both, or the least sure in both.

    Which records are least sure is decided for a split as a whole, by the first order's predictions of all checkpoints.
    """
    both = scoring.llm.swap == "both"
    wanted = [{split: np.stack([mask, mask & both], axis=1) for split, mask in of_one.items()} for of_one in masks]
    answers = [_ask(scoring, scorer, each, True) for scorer, each in zip(scorers, wanted, strict=True)]
    if scoring.llm.swap == "uncertain":
        second = _least_sure(scoring, masks, answers)
        for each in wanted:
            for split, asked in each.items():
                asked[:, 1] = asked[:, 0] & second[split]
        answers = [_ask(scoring, scorer, each, False) for scorer, each in zip(scorers, wanted, strict=True)]
    return [_outcome(scoring, *each) for each in zip(masks, wanted, answers, strict=True)]


def _least_sure(scoring: Scoring, masks: Sequence[Masks], answers: Sequence[Answers]) -> Masks:
    chosen = {}
    for split, numbers in scoring.packed.requests.items():
        total, count = np.zeros((len(numbers), 3)), np.zeros((len(numbers), 1))
        for mask, given in zip(masks, answers, strict=True):
            first = tempered(given.probabilities[numbers[:, 0]], scoring.llm.temperature)
            there = mask[split] & ~np.isnan(first[:, 0])
            total[there] += first[there]
            count[there] += 1
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        chosen[split] = least_sure(mean, scoring.llm.uncertain_share)
    return chosen


def _outcome(scoring: Scoring, masks: Masks, wanted: Wanted, answers: Answers) -> Outcome:
    """How the answers to one checkpoint's requests become predictions for records."""
    values = tempered(answers.probabilities, scoring.llm.temperature)
    result, failed, both = {}, {}, {}
    for split, asked in wanted.items():
        numbers = scoring.packed.requests[split]
        first, second = (np.where(asked[:, [n]], values[numbers[:, n]], np.nan) for n in range(len(ORDERS)))
        result[split] = np.where(asked[:, [1]], swap_average(first, second), first)
        in_both = asked[:, 1] & ~np.isnan(result[split][:, 0])
        both[split] = first[in_both], second[in_both]
        lost = np.flatnonzero(asked[:, 0] & np.isnan(result[split][:, 0])).tolist()
        failed[split] = {row: _reason(answers, numbers[row].tolist()) for row in lost}
    distinct, tokens = scoring.packed.count(wanted)
    return Outcome(
        masks=masks,
        values=result,
        reasons=failed,
        requests=int(sum(asked.sum() for asked in wanted.values())),
        distinct=distinct,
        both=both,
        tokens=tokens,
        seconds=float(answers.seconds[scoring.packed.numbers(wanted)].sum()),
    )


def _reason(answers: Answers, numbers: list[int]) -> str:
    return next((answers.reasons[number] for number in numbers if number in answers.reasons), "no answer")


def _ask(scoring: Scoring, scorer: Scorer, wanted: Wanted, failed_again: bool) -> Answers:
    """The answers to all requests wanted, once those that are missing have been asked.

    Of those that failed, the ones of an earlier run may be asked again.
    """
    folder, packed = scoring.stage.folder, scoring.packed
    model = model_fingerprint(scoring.stage, scorer)
    before = read_answers(folder, packed, scorer.prefix, model)
    answered = before.answered(failed_too=not failed_again)
    missing = units(packed, scoring.records, wanted, answered, scorer.prefix)
    found = packed.count(wanted)[0] - sum(len(unit.requests) for unit in missing)
    if found and failed_again:
        say(scoring.stage.name, f"{found:,} requests found answered, {'resuming' if missing else 'none left to ask'}")
    elif missing and not failed_again:
        say(scoring.stage.name, "asking for the second order of the records that it is least sure of")
    # To find one takes some starts of an engine: no more than may fail, or a few of a small run.
    most_killers = max(_FEW_KILLERS, int(scoring.llm.max_failed * packed.count(wanted)[0]))
    score_units(scoring, scorer, missing, model, most_killers)
    return read_answers(folder, packed, scorer.prefix, model)


def model_fingerprint(stage: Stage, scorer: Scorer) -> str:
    """What decides a checkpoint's answer to a text."""
    of_stage = {name: stage.settings[name] for name in ("dtype", "mode", "engine")}
    return fingerprint({"checkpoint": scorer.fingerprint, **of_stage})
