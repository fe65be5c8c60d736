"""Score training and test records with language models: vLLM actors under Ray Data.

A checkpoint that comes trained scores every record, training and test records alike. Of a model that train_llm trained
here, each fold's checkpoint scores the training records of its fold and all test records, for which the folds are
averaged. Each distinct text is scored once. As many models work at once as the cluster has room for. The unit of resume
is the shard. With --dry-run nothing is scored: it says what scoring would take.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.progress import say
from core.ray_session import connect
from core.resources import engine_request, room_for_all
from core.run import Run, StageResult
from core.settings.llm import Llm
from core.stage import Stage, fingerprint
from featurize.tokens.packed_records import Packing, pack_records
from infer.scoring.checkpoints import Scorer, check_scorers, packing
from infer.scoring.engine_settings import effective_dtype
from infer.scoring.engines import NoRoomError, Scoring
from infer.scoring.predictions import Cheaper, commit, read_cheaper
from infer.scoring.requests import read_packed
from infer.scoring.swap_scoring import Masks, score_records
from votes import predictions

if TYPE_CHECKING:
    from votes.records import Records

Work = Callable[[], list[StageResult]]
Checkpoints = Callable[[Llm], tuple[list[Scorer], list[StageResult]]]  # see infer.scoring.checkpoints.scorers


def score_records_with(run: Run, records: Records, llms: Sequence[Llm], checkpoints: Checkpoints) -> list[StageResult]:
    """Make predictions/<name> for some language models, whose checkpoints may be those of another run."""
    results: list[StageResult] = []
    waiting: list[tuple[Llm, Work]] = []
    for llm in llms:
        beside = [one for one, _ in waiting]
        needs_one = llm.cascade is not None and llm.cascade.model in [one.name for one in beside]
        if needs_one or not _fits(run, beside, llm):
            results += _at_once(waiting)
            waiting = []
        done, work = _prepare(run, records, llm, checkpoints)
        results += done
        if work is not None:
            waiting.append((llm, work))
    return results + _at_once(waiting)


def score_stage(run: Run, records: Records, llm: Llm, found: Sequence[Scorer], how: Packing) -> Stage:
    """The stage of predictions/<name>, given a model's checkpoints and how records are packed for them."""
    inputs = {"records": records.fingerprint, "checkpoint": fingerprint([scorer.fingerprint for scorer in found])}
    if llm.cascade is not None:
        inputs["cascade"] = predictions.model_fingerprints(run, records, [llm.cascade.model])[llm.cascade.model]
    chosen = {"mode", "swap", "uncertain_share", "temperature", "cascade"}
    return Stage(
        f"score_llm/{llm.name}",
        run.folder / f"predictions/{llm.name}",
        settings={
            "packing": how.fingerprint,
            "dtype": effective_dtype(llm.dtype, llm.gpus_per_replica),
            "engine": llm.decisive_engine,
            **llm.model_dump(mode="json", include=chosen),
        },
        inputs=inputs,
    )


def _prepare(run: Run, records: Records, llm: Llm, checkpoints: Checkpoints) -> tuple[list[StageResult], Work | None]:
    """What is there of a model's predictions already, and how to make them if they are not there whole."""
    found, results = checkpoints(llm)
    name, base, how = packing(run, llm, found[0])
    stage = score_stage(run, records, llm, found, how)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [*results, StageResult(stage.name, True, manifest)], None
    check_scorers(llm, found)
    results.append(pack_records(run, records, name, base, how))

    def work() -> list[StageResult]:
        stage.begin()
        if run.force:
            (stage.folder / "shards").delete_all()
        tokens = run.folder / f"tokens/{name}"
        scoring = Scoring(run, records, llm, stage, tokens, read_packed(tokens, records))
        cheaper = read_cheaper(run, records, llm)
        scored = score_records(scoring, found, [_mask(records, scorer, cheaper) for scorer in found])
        return [StageResult(stage.name, False, commit(scoring, found, scored, cheaper))]

    return results, work


def _mask(records: Records, scorer: Scorer, cheaper: Cheaper | None) -> Masks:
    """Which records a checkpoint is to score."""
    masks = {split: np.ones(records.rows(split), bool) for split in records.splits}
    if scorer.fold is not None and "train" in masks:
        _, folds = records.labels_and_folds()
        masks["train"] &= folds == scorer.fold
    if cheaper is not None:
        masks = {split: mask & cheaper.passed_on[split] for split, mask in masks.items()}
    return masks


def _fits(run: Run, beside: list[Llm], llm: Llm) -> bool:
    """Whether the cluster, as it is or may become, has room for the engines of a model beside those of others."""
    if not beside:
        return True
    connect(run)
    one_engine = [(one, engine_request(one)) for one in [*beside, llm]]
    return room_for_all(
        [dataclasses.replace(each, count=each.count * one.replica_range[1]) for one, each in one_engine]
    )


def _at_once(waiting: list[tuple[Llm, Work]]) -> list[StageResult]:
    """Do the work of several models side by side. Where one fails, the others go on, and its error is raised then.

    One for which the cluster did not grow has its turn when the others are done.
    """
    if len(waiting) < 2:
        return [result for _, work in waiting for result in work()]
    done: dict[str, list[StageResult]] = {}
    failed: dict[str, BaseException] = {}

    def do(llm: Llm, work: Work) -> None:
        try:
            done[llm.name] = work()
        except BaseException as error:
            say(f"score_llm/{llm.name}", f"failed: {error}")
            failed[llm.name] = error

    # Daemons, so that an interrupted job ends without waiting for them.
    threads = [threading.Thread(target=do, args=each, daemon=True) for each in waiting]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for llm, work in waiting:
        if isinstance(failed.get(llm.name), NoRoomError):
            say(f"score_llm/{llm.name}", "there was no room beside the other models; now there may be")
            done[llm.name] = work()
            del failed[llm.name]
    for error in failed.values():
        raise error
    return [result for llm, _ in waiting for result in done[llm.name]]
