"""The checkpoints that score with a language model: where they are, what they are, and whether they may."""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError
from core.model_cache import CheckpointRef, stored_fingerprint
from core.progress import say
from core.ray_session import connect
from core.run import Run, StageResult
from core.stage import Stage, read_manifest, require_finished
from core.storage import Folder
from demo import stages
from featurize.tokens.packed_records import Packing, packing_of
from train.finetune.base_model import base_of
from train.finetune.checkpoints import MODEL, TRAINED_ON
from train.finetune.stages import model_stage

if TYPE_CHECKING:
    from core.settings.llm import Llm
    from votes.records import Records

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Scorer:
    """One checkpoint and the training records that it scores: all, or those of the fold it was not trained on."""

    place: str  # a folder's path or URI, or a hub id
    fingerprint: str
    fold: int | None = None

    def outline(self) -> str:
        """A hub id, or a folder on this machine that has all but the numbers of the weights."""
        return CheckpointRef(self.place, self.fingerprint).header_only()

    @property
    def prefix(self) -> str:
        """Folder of its shards."""
        return "shards" if self.fold is None else f"shards/fold-{self.fold}"


def check(run: Run) -> None:
    """Raise InputError for what would stop the scoring later: vLLM missing, a checkpoint that cannot score."""
    for llm in run.settings.llms:
        check_llm(run, llm)


def check_llm(run: Run, llm: Llm) -> None:
    """The same for one model."""
    from infer.scoring.checkpoint_checks import check_checkpoint, require_vllm

    require_vllm(llm.gpus_per_replica)
    if llm.engine:  # importing vLLM takes seconds
        from infer.scoring.vllm_engine import check_engine_arguments

        check_engine_arguments(llm.name, list(llm.engine))
    if llm.checkpoint is not None and llm.adapter is None and "://" not in llm.checkpoint:
        check_checkpoint(llm.checkpoint, llm.max_tokens, llm.mode, llm.truncation)


def scorers(run: Run, records: Records, llm: Llm) -> tuple[list[Scorer], list[StageResult]]:
    """The checkpoints of a model, and what was made for them; none is copied or loaded yet.

    Raises InputError if they are not trained yet, or were trained on the very records of this run.
    """
    if llm.trained is not None:
        trained = run.finished(f"models/{llm.trained}", "train_llm", records.fingerprint_of("train"))
        folder = run.folder / f"models/{llm.trained}"
        prints = {fold: f"{trained['fingerprint']}-{fold}" for fold in trained["folds"]}
        return [Scorer((folder / f"fold-{fold}/{MODEL}").uri, each, fold) for fold, each in prints.items()], []
    if llm.demo is not None:
        folder = stages.checkpoint_folder(run, llm)
        return [Scorer(folder.uri, str((read_manifest(folder) or {})["fingerprint"]))], []
    assert llm.checkpoint is not None
    _refuse_seen(llm, records)
    if llm.adapter is None:
        return [Scorer(llm.checkpoint, checkpoint_fingerprint(llm.checkpoint))], []
    merged = _merge(run, llm)
    return [Scorer((run.folder / f"models/{llm.name}").uri, str(merged.manifest["fingerprint"]))], [merged]


def planned_scorers(run: Run, records: Records, llm: Llm) -> list[Scorer]:
    """What `scorers` will give, without work: for a checkpoint that is not made yet, the model that it is made of."""
    if llm.trained is None:
        return scorers(run, records, llm.model_copy(update={"adapter": None}))[0]  # an adapter changes no shape
    try:
        run.finished(f"models/{llm.trained}", "train_llm", records.fingerprint_of("train"))
    except InputError:
        (model,) = (model for model in run.settings.finetune.llms if model.name == llm.trained)
        base = base_of(model.model)
        folds = range(run.settings.data.folds) if model.folds is None else sorted(set(model.folds))
        return [Scorer(base.location, base.fingerprint, fold) for fold in folds]
    return scorers(run, records, llm)[0]


def finished_scorers(run: Run, records: Records, llm: Llm) -> list[Scorer]:
    """The checkpoints of a model of a finished run. Raises InputError if one is not there as the settings make it."""
    if llm.trained is not None:
        (model,) = (model for model in run.settings.finetune.llms if model.name == llm.trained)
        require_finished(model_stage(run, records, model, base_of(model.model), "train_llm"), "train_llm")
    elif llm.demo is not None:
        require_finished(stages.checkpoint_stage(run, llm), "score_llm")
    elif llm.adapter is not None:
        require_finished(_merge_stage(run, llm), "score_llm")
    return scorers(run, records, llm)[0]


def check_scorers(llm: Llm, found: list[Scorer]) -> None:
    """Raise InputError for a checkpoint that cannot score."""
    from infer.scoring.checkpoint_checks import check_checkpoint

    for scorer in found:
        check_checkpoint(scorer.outline(), llm.max_tokens, llm.mode, llm.truncation)


def packing(run: Run, llm: Llm, scorer: Scorer) -> tuple[str, CheckpointRef, Packing]:
    """The name of the stage of tokens, whose tokenizer packs, and how: what training packed serves scoring as it is."""
    if llm.trained is not None:
        (model,) = (model for model in run.settings.finetune.llms if model.name == llm.trained)
        return model.name, base_of(model.model), packing_of(model)
    frame = None
    if llm.mode == "judge":
        from core.pretrained import load_tokenizer
        from infer.scoring.judge_prompt import chat_frame

        frame = chat_frame(load_tokenizer(scorer.outline()))
    in_store = "://" in scorer.place
    base = CheckpointRef(scorer.place, scorer.fingerprint if in_store else tokenizer_fingerprint(scorer.place))
    return llm.name, base, Packing(llm.max_tokens, truncation=llm.truncation, frame=frame)


def tokenizer_fingerprint(checkpoint: str) -> str:
    """What a checkpoint's tokenizer is: the contents of its files; for a hub id, the id."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    return _digest([folder / name for name in TOKENIZER_FILES if (folder / name).exists()])


def checkpoint_fingerprint(checkpoint: str) -> str:
    """What a checkpoint is: the stage that made it, else the names and contents of its files; for a hub id, the id.

    Whole files are read: two fine-tunes of one model can have the same sizes and differ in their last tensors alone. In
    an object store it is their names, sizes and times of change.
    """
    if "://" in checkpoint:
        return stored_fingerprint(checkpoint)
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    manifest = read_manifest(Folder(checkpoint)) or {}
    if "fingerprint" in manifest:  # else it is somebody else's
        return str(manifest["fingerprint"])
    return _digest(sorted(path for path in folder.iterdir() if path.is_file()))


def _digest(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _merge(run: Run, llm: Llm) -> StageResult:
    """Make models/<name>, the checkpoint with its adapter merged into it."""
    stage = _merge_stage(run, llm)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult(stage.name, True, manifest)
    import ray

    connect(run)
    say(stage.name, f"adding {llm.adapter} to {llm.checkpoint}")
    manifest = ray.get(ray.remote(num_cpus=1)(_merge_into).remote(llm, stage))
    return StageResult(stage.name, False, manifest)


def _merge_stage(run: Run, llm: Llm) -> Stage:
    assert llm.checkpoint is not None
    assert llm.adapter is not None
    prints = {"checkpoint": checkpoint_fingerprint(llm.checkpoint), "adapter": checkpoint_fingerprint(llm.adapter)}
    if prints["adapter"] == llm.adapter:
        raise InputError("no such folder", llm.adapter, f"give llms.{llm.name}.adapter the folder that peft saved.")
    return Stage(f"merge/{llm.name}", run.folder / f"models/{llm.name}", {"mode": llm.mode}, prints)


def _merge_into(llm: Llm, stage: Stage) -> dict[str, Any]:
    from train.finetune.adapters import merge_adapter

    started = time.monotonic()
    stage.begin()
    assert llm.checkpoint is not None
    assert llm.adapter is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = [
            CheckpointRef(place, stage.inputs[kind]).local()
            for kind, place in (("checkpoint", llm.checkpoint), ("adapter", llm.adapter))
        ]
        merge_adapter(places[0], places[1], folder, llm.mode)
        names = {path.name for path in folder.iterdir()}
        for file in sorted(names):
            stage.folder.write_file(file, folder / file)
    return stage.commit({}, keep=names, seconds=time.monotonic() - started)


def _refuse_seen(llm: Llm, records: Records) -> None:
    """Raise InputError if the checkpoint or its adapter was trained on the very records that it would score."""
    for place in (llm.checkpoint, llm.adapter):
        try:
            trained_on = (
                Folder(place).read_json(TRAINED_ON) if place and ("://" in place or Path(place).is_dir()) else {}
            )
        except (FileNotFoundError, ValueError):
            continue
        if set(records.votes) & set(trained_on.get("votes", [])):
            raise InputError(
                f"the checkpoint was trained on these records, all but those of fold {trained_on.get('fold')}, so that "
                "its predictions for them say nothing about others",
                where=f"llms.{llm.name}.{'checkpoint' if place == llm.checkpoint else 'adapter'}",
                fix="name the entry of finetune.llms with `trained` instead, which scores each record out-of-fold.",
            )
