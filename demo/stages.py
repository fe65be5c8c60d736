"""Build the demo's inputs: synthetic pairs and tiny language models."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core import logs
from core.ray_session import connect
from core.run import Run, StageResult
from core.stage import Stage
from featurize.tokens.packing import packing_fingerprint
from votes import predictions

if TYPE_CHECKING:
    from core.arrays import Probabilities
    from core.settings.llm import Llm
    from core.storage import Folder

# Part of the fingerprints: raise them when the generator or the checkpoints come out differently.
GENERATOR_VERSION = 1
TINY_LLM_VERSION = 1


def pairs_folder(run: Run) -> Folder:
    """Return the folder where the run keeps its synthetic pairs."""
    return run.folder / "demo/pairs"


def is_synthetic(run: Run) -> bool:
    """Return whether the records are synthetic: `data.synthetic` is set and no input is."""
    data = run.settings.data
    return data.synthetic is not None and data.train is None and data.test is None


def make_pairs(run: Run) -> list[StageResult]:
    """Write synthetic train.csv and test.csv, and the true probabilities, if the settings name them.

    Otherwise nothing is written and the list is empty.
    """
    synthetic = run.settings.data.synthetic
    if synthetic is None or not is_synthetic(run):
        return []
    rows = {"train": synthetic.train_rows, "test": synthetic.test_rows}
    classes = len(synthetic.outcomes)
    stage = Stage(
        "demo_pairs",
        pairs_folder(run),
        settings={"seed": run.settings.seed, "rows": rows, "version": GENERATOR_VERSION, "classes": classes},
    )
    manifest = None if run.force else stage.manifest()
    if manifest is None:
        stage.begin()
        manifest = _write_pairs(run, stage, rows, classes)
        return [StageResult("demo_pairs", False, manifest)]
    return [StageResult("demo_pairs", True, manifest)]


def _write_pairs(run: Run, stage: Stage, rows: Mapping[str, int], classes: int) -> dict[str, Any]:
    from demo.generator import generate_pairs, write_csv

    best = {}
    for split, count in rows.items():
        pairs = generate_pairs(count, seed=run.settings.seed, stream=split, classes=classes)
        text = io.StringIO(newline="")
        write_csv(pairs, text, labeled=split == "train")
        stage.folder.write_bytes(f"{split}.csv", text.getvalue().encode())
        stage.folder.write_table(f"truth-{split}.parquet", pairs.truth, stage.fingerprint)
        best[split] = pairs.best_log_loss
    return stage.commit(rows=rows, metrics={"best_log_loss": best})


def true_probabilities(run: Run, ids: pa.ChunkedArray, classes: int) -> Probabilities | None:
    """Return the true probabilities (n, k) of the training records `ids` if they are synthetic, else None."""
    if not is_synthetic(run):
        return None
    table = pairs_folder(run).read_table("truth-train.parquet")
    truth = predictions.probabilities_from_table(table.take(pc.index_in(ids, table["id"].combine_chunks())))
    if truth.shape[1] > classes:  # both bad counts as a tie
        truth = np.column_stack([truth[:, : classes - 1], truth[:, classes - 1 :].sum(axis=1)])
    return truth


def checkpoint_folder(run: Run, llm: Llm) -> Folder:
    """Return the folder where the run keeps a tiny checkpoint that it builds itself."""
    return run.folder / f"demo/llm-{llm.name}"


def checkpoint_stage(run: Run, llm: Llm, classes: int) -> Stage:
    """Return the stage that builds the tiny checkpoint of a model for votes with this number of outcomes."""
    return Stage(
        f"demo_llm/{llm.name}",
        checkpoint_folder(run, llm),
        settings={
            "seed": run.settings.seed,
            "version": TINY_LLM_VERSION,
            "max_tokens": llm.max_tokens,
            "packing": packing_fingerprint(llm.max_tokens),
            "classes": classes,
            **(llm.demo.model_dump() if llm.demo else {}),
        },
    )


def build_tiny_checkpoints(run: Run, classes: int) -> list[StageResult]:
    """Build the tiny checkpoints of the settings, as many at once as there are CPUs."""
    tiny = [llm for llm in run.settings.llms if llm.demo is not None]
    stages = {llm.name: checkpoint_stage(run, llm, classes) for llm in tiny}
    manifests = {name: None if run.force else stage.manifest() for name, stage in stages.items()}
    missing = [llm for llm in tiny if manifests[llm.name] is None]
    results = [StageResult(stages[name].name, True, manifest) for name, manifest in manifests.items() if manifest]
    if missing:
        import ray

        connect(run)
        logs.info("demo_llm", f"building {', '.join(llm.name for llm in missing)}")
        build = ray.remote(num_cpus=1)(_build_checkpoint)
        results += ray.get([build.remote(llm, stages[llm.name], run.settings.seed, classes) for llm in missing])
    return results


def _build_checkpoint(llm: Llm, stage: Stage, seed: int, classes: int) -> StageResult:
    from demo.tiny_llm import build_tiny_llm

    started = time.monotonic()
    stage.begin()
    with tempfile.TemporaryDirectory() as folder:
        assert llm.demo is not None
        metrics = build_tiny_llm(
            llm.demo.architecture, Path(folder), seed=seed, max_tokens=llm.max_tokens, classes=classes
        )
        names = {path.name for path in Path(folder).iterdir()}
        for name in sorted(names):
            stage.folder.write_bytes(name, (Path(folder) / name).read_bytes())
    return StageResult(stage.name, False, stage.commit({}, None, metrics, names, time.monotonic() - started))
