"""The demo's own inputs, made inside the run: synthetic pairs and tiny language models."""

import io
from collections.abc import Mapping
from typing import Any

from ray_jobs import predictions
from ray_jobs.artifacts import Stage
from ray_jobs.run import Run, StageResult
from ray_jobs.storage import Folder


def pairs_folder(run: Run) -> Folder:
    """Where the run keeps its synthetic pairs."""
    return run.folder / "demo/pairs"


def is_synthetic(run: Run) -> bool:
    """Whether the training records are pairs made here: `data.synthetic` is set and `data.train` is not."""
    return run.settings.data.synthetic is not None and run.settings.data.train is None


def make_pairs(run: Run) -> list[StageResult]:
    """Write synthetic train.csv and test.csv, and the true probabilities, if the settings ask for them.

    Otherwise nothing is made and the list is empty.
    """
    wanted = run.settings.data.synthetic
    if wanted is None or not is_synthetic(run):
        return []
    rows = {"train": wanted.train_rows, "test": wanted.test_rows}
    stage = Stage("demo_pairs", pairs_folder(run), settings={"seed": run.settings.seed, "rows": rows})
    manifest = None if run.force else stage.manifest()
    if manifest is None:
        stage.begin()
        manifest = _write_pairs(run, stage, rows)
        return [StageResult("demo_pairs", False, manifest)]
    return [StageResult("demo_pairs", True, manifest)]


def _write_pairs(run: Run, stage: Stage, rows: Mapping[str, int]) -> dict[str, Any]:
    from demo.generator import generate, write_csv

    best = {}
    for split, count in rows.items():
        pairs = generate(count, seed=run.settings.seed, stream=split)
        text = io.StringIO(newline="")
        write_csv(pairs, text, labelled=split == "train")
        stage.folder.write_bytes(f"{split}.csv", text.getvalue().encode())
        stage.folder.write_table(f"truth-{split}.parquet", pairs.truth, stage.fingerprint)
        best[split] = pairs.best_log_loss
    return stage.commit(rows=rows, metrics={"best_log_loss": best})


def truth(run: Run) -> predictions.Floats | None:
    """True probabilities (n, 3) of the training records if the run made its own pairs, else None."""
    if not is_synthetic(run):
        return None
    return predictions.probabilities(pairs_folder(run).read_table("truth-train.parquet"))
