"""Locate or build the models that fine-tuning starts from."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import fingerprints, logs
from core.errors import InputError
from core.model_cache import CheckpointRef, stored_fingerprint
from core.pretrained import locate_model
from core.ray_session import connect
from core.run import Run, StageResult
from core.settings.finetune import FinetunedEncoder, FinetunedLlm
from core.stage import Stage
from votes.schema import LABELS, TEXTS

if TYPE_CHECKING:
    from core.settings.finetune import FinetunedModel
    from votes.records import Records

SCRATCH_VERSION = 1  # part of the fingerprint: raise it when the same settings give another encoder
SCRATCH_RECORDS = 20_000  # from which the tokenizer of an encoder from scratch is trained, at most


def check_bases(models: Sequence[FinetunedModel]) -> None:
    """Raise InputError for a pre-trained model that cannot be loaded, or reads fewer tokens than `max_tokens`."""
    from train.finetune.networks import load_config, max_positions

    for model in models:
        base = _pretrained(model)
        if base is None:
            continue
        most = max_positions(load_config(_header_only(base)), decoder=model.layout == "decoder")
        if most is not None and model.max_tokens > most:
            raise InputError(
                f"{base} reads at most {most} tokens, not {model.max_tokens}", f"{model.name}.max_tokens", "lower it."
            )


def _pretrained(model: FinetunedModel) -> str | None:
    if isinstance(model, FinetunedEncoder):
        return None if model.scratch is not None else model.base
    assert isinstance(model, FinetunedLlm)
    return model.model


def pretrained_base(model: str) -> CheckpointRef:
    """Return a pre-trained model by folder, URI or hub id. Raises InputError if it cannot be loaded."""
    from train.finetune.networks import load_config

    load_config(_header_only(model))  # fail here, not in every worker
    if "://" in model:
        return CheckpointRef(model, stored_fingerprint(model))
    location = locate_model(model)
    return CheckpointRef(location, fingerprints.model_identity(location))


def _header_only(model: str) -> str:
    """Return a hub id, or a folder on this machine that has at least the headers of the weights."""
    return CheckpointRef(model, stored_fingerprint(model)).header_only() if "://" in model else locate_model(model)


def encoder_base(encoder: FinetunedEncoder, scratch: Stage | None) -> CheckpointRef:
    """Return the model that an encoder starts from. `scratch` is the stage that builds it, None if pre-trained."""
    if scratch is None:
        return pretrained_base(encoder.base)
    return CheckpointRef(scratch.folder.uri, scratch.fingerprint, in_run=True)


def scratch_stage(run: Run, records: Records, encoder: FinetunedEncoder) -> Stage | None:
    """Return the stage that builds the model an encoder starts from; None if it is pre-trained."""
    if encoder.scratch is None:
        return None
    return Stage(
        f"scratch/{encoder.name}",
        run.folder / f"scratch/{encoder.name}",
        settings={
            "seed": run.settings.seed,
            "version": SCRATCH_VERSION,
            "max_tokens": encoder.max_tokens,
            **encoder.scratch.model_dump(),
        },
        inputs={"records": records.fingerprint_of("train")},
    )


def build_base(run: Run, records: Records, encoder: FinetunedEncoder) -> tuple[CheckpointRef, list[StageResult]]:
    """Build the model that an encoder starts from, unless it is pre-trained. Return it, and the stages of this."""
    stage = scratch_stage(run, records, encoder)
    base = encoder_base(encoder, stage)
    if stage is None:
        return base, []
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return base, [StageResult(stage.name, True, manifest)]
    import ray

    connect(run)
    stage.begin()
    logs.info(stage.name, "training the tokenizer")
    build = ray.remote(num_cpus=1)(_build_scratch)
    manifest = ray.get(build.remote(records, encoder, stage, run.settings.seed))
    return base, [StageResult(stage.name, False, manifest)]


def _build_scratch(records: Records, encoder: FinetunedEncoder, stage: Stage, seed: int) -> dict[str, Any]:
    from train.finetune.scratch import build_scratch

    started = time.monotonic()
    assert encoder.scratch is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = LABELS[: records.classes]
        size = build_scratch(folder, _texts(records), encoder.scratch, encoder.max_tokens, seed, labels)
        names = {path.name for path in folder.iterdir()}
        for file in sorted(names):
            stage.folder.write_file(file, folder / file)
    return stage.commit({}, metrics={"vocabulary": size}, keep=names, seconds=time.monotonic() - started)


def _texts(records: Records) -> Iterator[str]:
    """Yield the turns of the first `SCRATCH_RECORDS` training records."""
    remaining = SCRATCH_RECORDS
    for shard in records.shards("train"):
        if remaining <= 0:
            return
        table = records.folder.read_table(shard, list(TEXTS)).slice(0, remaining)
        remaining -= len(table)
        for name in TEXTS:
            for turns in table[name].to_pylist():
                yield from (turn.encode("utf-8", "replace").decode() for turn in turns if turn)
