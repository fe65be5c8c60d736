"""Identify checkpoints, and build checkpoints by merging an adapter."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core import logs
from core.errors import InputError
from core.model_cache import CheckpointRef, stored_fingerprint
from core.ray_session import connect
from core.registry import MODES, plugin_digest
from core.run import Run, StageResult
from core.stage import Stage, read_manifest
from core.storage import Folder

if TYPE_CHECKING:
    from core.settings.llm import Llm

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def tokenizer_fingerprint(checkpoint: str) -> str:
    """Return the digest of a checkpoint's tokenizer files; for a hub id, the id."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    return _digest([folder / name for name in TOKENIZER_FILES if (folder / name).exists()])


def checkpoint_fingerprint(checkpoint: str) -> str:
    """Return the identity of a checkpoint: its stage, else names and contents of its files, or the hub id.

    Whole files are read, since fine-tunes of one model can have the same sizes and differ in the last tensors only. In
    an object store, names, sizes and modification times are used.
    """
    if "://" in checkpoint:
        return stored_fingerprint(checkpoint)
    folder = Path(checkpoint)
    if not folder.is_dir():
        return checkpoint
    manifest = read_manifest(Folder(checkpoint)) or {}
    if "fingerprint" in manifest:  # else it is another program's
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


def merge_stage(run: Run, llm: Llm, classes: int = 3) -> Stage:
    """Return the stage of models/<name>, a checkpoint with its adapter merged into it."""
    checkpoint, adapter = _sources(llm)
    inputs = {"checkpoint": checkpoint_fingerprint(checkpoint), "adapter": checkpoint_fingerprint(adapter)}
    if inputs["adapter"] == adapter:
        raise InputError("no such folder", adapter, f"give llms.{llm.name}.adapter the folder that peft saved.")
    plugin = plugin_digest(MODES.get(llm.mode))  # the mode loads the model
    settings = {"mode": llm.mode, "classes": classes, **({"versions": {"plugin": plugin}} if plugin else {})}
    return Stage(f"merge/{llm.name}", run.folder / f"models/{llm.name}", settings, inputs)


def merged_checkpoint(run: Run, llm: Llm, classes: int = 3) -> StageResult:
    """Make models/<name> unless it is finished."""
    stage = merge_stage(run, llm, classes)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult(stage.name, True, manifest)
    import ray

    connect(run)
    logs.info(stage.name, f"adding {llm.adapter} to {llm.checkpoint}")
    manifest = ray.get(ray.remote(num_cpus=1)(_merge_into).remote(llm, stage))
    return StageResult(stage.name, False, manifest)


def _merge_into(llm: Llm, stage: Stage) -> dict[str, Any]:
    from train.finetune.adapters import merge_adapter

    started = time.monotonic()
    stage.begin()
    checkpoint, adapter = _sources(llm)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merge_adapter(
            CheckpointRef(checkpoint, stage.inputs["checkpoint"]).local(),
            CheckpointRef(adapter, stage.inputs["adapter"]).local(),
            folder,
            functools.partial(MODES.get(llm.mode).load_model, classes=stage.settings["classes"]),
        )
        names = {path.name for path in folder.iterdir()}
        for file in sorted(names):
            stage.folder.write_file(file, folder / file)
    return stage.commit({}, keep=names, seconds=time.monotonic() - started)


def _sources(llm: Llm) -> tuple[str, str]:
    assert llm.checkpoint is not None
    assert llm.adapter is not None
    return llm.checkpoint, llm.adapter
