"""Write votes in the shape of another tool: TRL, OpenAI, the arena, Kaggle and so on.

Run as: python -m ray_jobs.convert --config FILE --set data.train=VOTES --set convert.to=trl --set convert.output=FILE

Votes of any readable format are converted; see docs/formats.md. Records that the shape cannot hold, such as ties among
chosen and rejected answers, are counted and named. With `convert.margins` each pair has the margin of the run's blend.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from core.cli import Job, main
from core.run import StageResult
from infer.ensemble.stage import blend_stage
from votes.conversion import convert_records
from votes.predictions import probabilities_from_table
from votes.records import open_records

if TYPE_CHECKING:
    from core.run import Run


def convert(run: Run) -> list[StageResult]:
    """Read the votes unless that is done, and write them to convert.output."""
    results: list[StageResult] = importlib.import_module("ray_jobs.ingest").JOB.work(run)
    records, predicted = open_records(run), None
    if run.settings.convert.reads_blend:
        blended = blend_stage(run, records).require("blend")
        name = f"train-{blended['settings']['submission']}.parquet"
        predicted = probabilities_from_table((run.folder / "blend").read_table(name))
    manifest = convert_records(records, run.settings.convert, predicted)
    left_out = manifest["metrics"]["left_out"]
    notes = [f"{count} records left out: {reason}" for reason, count in left_out.items()]
    return [*results, StageResult("convert", False, manifest, [*notes, f"written: {run.settings.convert.output}"])]


JOB = Job("convert", __doc__, convert, saves_settings=False, reads=("data", "convert"))

if __name__ == "__main__":
    sys.exit(main(JOB))
