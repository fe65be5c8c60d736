"""Score with language models, from packed records to predictions/<name>. The unit of resume is the shard."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core import logs
from core.model_cache import engine_source
from core.progress import Throughput
from core.ray_session import connect
from core.registry import MODES, plugin_digest
from core.resources import engine_request, require_capacity
from core.run import Run, StageResult
from core.stage import Stage, fingerprint
from featurize.tokens.packed_records import pack_records
from infer.scoring.capacity import ModelWork, engines_fit_at_once, run_together, wait_for_capacity
from infer.scoring.checkpoint_checks import check_checkpoint
from infer.scoring.job import ScoringJob, retry_levels
from infer.scoring.predictions import CascadeInput, ScoredModel, commit_predictions, read_cascade_input
from infer.scoring.requests import deduplicate_requests, read_replies, reply_schema, request_shards
from infer.scoring.swap import score_records
from votes import predictions

if TYPE_CHECKING:
    from core.settings.llm import Llm
    from core.storage import Folder
    from infer.scoring.checkpoint import ScoringCheckpoint, ScoringModel
    from infer.scoring.isolation import ShardScores
    from infer.scoring.requests import OrderMasks, RecordMasks, Replies, RequestIndex, RequestShard
    from votes.records import Records

ModelResolver = Callable[["Llm"], "ScoringModel"]  # such as infer.scoring.checkpoints.scoring_model
_MIN_POISON_LIMIT = 3


def score_llms(run: Run, records: Records, llms: Sequence[Llm], resolve: ModelResolver) -> list[StageResult]:
    """Write predictions/<name> for some language models. Their checkpoints may belong to another run.

    As many work at once as the cluster has room for.
    """
    results: list[StageResult] = []
    waiting: list[tuple[Llm, ModelWork]] = []
    for llm in llms:
        needs_one = llm.cascade is not None and llm.cascade.model in [model.name for model, _ in waiting]
        if waiting and (needs_one or not _fits_beside(run, [model for model, _ in waiting], llm)):
            results += run_together(waiting)
            waiting = []
        done, work = _prepare(run, records, llm, resolve(llm))
        results += done
        if work is not None:
            waiting.append((llm, work))
    return results + run_together(waiting)


def score_stage(run: Run, records: Records, llm: Llm, model: ScoringModel) -> Stage:
    """Return the stage of predictions/<name>."""
    checkpoints = fingerprint([checkpoint.ref.fingerprint for checkpoint in model.checkpoints])
    inputs = {"records": records.fingerprint, "checkpoint": checkpoints}
    if llm.cascade is not None:
        inputs["cascade"] = predictions.model_fingerprints(run, records, [llm.cascade.model])[llm.cascade.model]
    plugin = plugin_digest(MODES.get(llm.mode))
    return Stage(
        f"score_llm/{llm.name}",
        run.folder / f"predictions/{llm.name}",
        settings={
            "packing": model.packing.fingerprint,
            "dtype": llm.effective_dtype,
            "engine_args": llm.decisive_engine_args,
            **llm.model_dump(mode="json", include={"mode", "swap", "uncertain_share", "temperature", "cascade"}),
            **({"versions": {"plugin": plugin}} if plugin else {}),
        },
        inputs=inputs,
    )


def reply_fingerprint(stage: Stage, checkpoint: ScoringCheckpoint) -> str:
    """Return the fingerprint of what decides a checkpoint's reply to a text."""
    settings = stage.settings
    return fingerprint(
        {
            "checkpoint": checkpoint.ref.fingerprint,
            "dtype": settings["dtype"],
            "mode": settings["mode"],
            "engine": settings["engine_args"],  # under its former name, so that replies given then still count
            **settings.get("versions", {}),
        }
    )


def _fits_beside(run: Run, others: list[Llm], llm: Llm) -> bool:
    connect(run)
    return engines_fit_at_once([*others, llm])


def _prepare(run: Run, records: Records, llm: Llm, model: ScoringModel) -> tuple[list[StageResult], ModelWork | None]:
    """Return a model's finished predictions, and the work that computes the rest."""
    stage = score_stage(run, records, llm, model)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [*model.results, StageResult(stage.name, True, manifest)], None
    for checkpoint in model.checkpoints:
        check_checkpoint(checkpoint.ref.header_only(), llm.max_tokens, llm.mode, llm.truncation, records.classes)
    packed = pack_records(run, records, model.tokens_stage, model.tokenizer, model.packing)

    def work() -> list[StageResult]:
        stage.begin()
        if run.force:
            (stage.folder / "shards").delete_all()
        packed_folder = run.folder / f"tokens/{model.tokens_stage}"
        index = deduplicate_requests(packed_folder, records)
        scoring = _Scoring(run, records, llm, stage, packed_folder, index)
        return [StageResult(stage.name, False, scoring.score(model.checkpoints))]

    return [*model.results, packed], work


def _masks(records: Records, checkpoint: ScoringCheckpoint, cheaper: CascadeInput | None) -> RecordMasks:
    """Return which records a checkpoint is to score."""
    masks = {split: np.ones(records.rows(split), bool) for split in records.splits}
    if checkpoint.fold is not None and "train" in masks:
        folds = records.folds()
        masks["train"] &= folds == checkpoint.fold
    if cheaper is not None:
        masks = {split: mask & cheaper.passed_on[split] for split, mask in masks.items()}
    return masks


@dataclass(frozen=True)
class _Scoring:
    """The scoring of one language model."""

    run: Run
    records: Records
    llm: Llm
    stage: Stage
    packed_folder: Folder  # of the packed records
    index: RequestIndex

    def score(self, checkpoints: Sequence[ScoringCheckpoint]) -> dict[str, object]:
        """Send the unanswered requests, write the predictions, and return the stage's manifest."""
        cheaper = read_cascade_input(self.run, self.records, self.llm)
        masks = [_masks(self.records, checkpoint, cheaper) for checkpoint in checkpoints]
        scores = score_records(self.llm, self.index, checkpoints, masks, self._ask)
        folds = [checkpoint.fold for checkpoint in checkpoints if checkpoint.fold is not None]
        replies = {checkpoint.reply_folder: reply_fingerprint(self.stage, checkpoint) for checkpoint in checkpoints}
        return commit_predictions(self.stage, ScoredModel(self.llm, self.records, scores, folds, cheaper), replies)

    def _ask(self, checkpoint: ScoringCheckpoint, masks: OrderMasks, second_round: bool) -> Replies:
        """See infer.scoring.swap.CheckpointRequester."""
        model, folder = reply_fingerprint(self.stage, checkpoint), checkpoint.reply_folder
        before = read_replies(self.stage.folder, self.index, folder, model)
        answered = before.answered(failed_too=second_round)
        missing = request_shards(self.index, self.records, masks, answered, folder)
        count = self.index.count(masks)[0]
        answered_count = count - sum(len(shard.requests) for shard in missing)
        if answered_count and not second_round:
            state = "resuming" if missing else "no request left"
            logs.info(self.stage.name, f"{answered_count:,} requests have replies already, {state}")
        elif missing and second_round:
            logs.info(self.stage.name, "scoring the most uncertain records in the second order")
        if missing:
            # Isolating a poison request restarts the engine several times, so limit their number.
            max_poison = max(_MIN_POISON_LIMIT, int(self.llm.max_failed * count))
            self._score_shards(checkpoint, missing, model, max_poison)
        return read_replies(self.stage.folder, self.index, folder, model)

    def _score_shards(
        self, checkpoint: ScoringCheckpoint, shards: list[RequestShard], model: str, max_poison: int
    ) -> None:
        """Score the shards, and write each as soon as it is answered."""
        connect(self.run)
        require_capacity(engine_request(self.llm))
        job = scoring_job(self.llm, checkpoint, self.run.settings.seed, self.index.classes)
        wait_for_capacity(self.stage.name, self.llm)
        from infer.scoring.isolation import IsolationCallbacks, score_shards
        from infer.scoring.streaming import RequestStream
        from infer.scoring.vllm_engine import vllm_engines

        count = sum(len(shard.requests) for shard in shards)
        tokens = int(sum(self.index.token_counts[shard.requests].sum() for shard in shards))
        progress = Throughput(self.stage.name, "requests", count, tokens)
        logs.info(self.stage.name, f"starting the engine for {count:,} requests")
        ask = RequestStream(job, functools.partial(_read_tokens, folder=self.packed_folder), vllm_engines)
        events = IsolationCallbacks(progress.add, functools.partial(logs.info, self.stage.name))
        for scores in score_shards(shards, ask, retry_levels(self.llm), max_poison, events):
            self._write(scores, model)
        progress.end()

    def _write(self, scores: ShardScores, model: str) -> None:
        """Add a shard's replies to the same model's earlier replies in its file."""
        schema = reply_schema(self.index.texts.type, self.index.classes)
        table = pa.table(
            {
                "text": self.index.texts.take(pa.array(scores.requests)),
                **predictions.probability_columns(scores.probabilities),
                "reason": scores.reasons,
                "seconds": np.full(len(scores.requests), scores.seconds / len(scores.requests)),
            }
        ).cast(schema)
        folder = self.stage.folder
        if folder.table_fingerprint(scores.file) == model:
            before = folder.read_table(scores.file)
            repeated = pc.is_in(before["text"], table["text"].combine_chunks())
            table = pa.concat_tables([before.filter(pc.invert(repeated)).cast(schema), table])
        folder.write_table(scores.file, table, model)


def scoring_job(llm: Llm, checkpoint: ScoringCheckpoint, seed: int, classes: int = 3) -> ScoringJob:
    """Return the scoring job of a checkpoint, for its engines."""
    from core.pretrained import load_tokenizer

    mode = MODES.get(llm.mode)
    answer_ids: tuple[int, ...] = ()
    if mode.task_type == "generate":
        tokenizer = load_tokenizer(checkpoint.ref.header_only())
        answer_ids = mode.answer_ids(tokenizer, mode.frame(tokenizer, classes), classes)
    source, environment = engine_source(checkpoint.ref.location)
    return ScoringJob(llm, source, seed, answer_ids, environment, classes)


def _read_tokens(shard: str, folder: Folder) -> pa.Table:
    return folder.read_table(shard, ["ab", "ba", "reason"])
