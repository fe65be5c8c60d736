"""Score every model and blend out-of-fold, and write the report.

Run as: python -m ray_jobs.report --config configs/demo.yaml

metrics.json holds every number that index.html shows. Each section of the page is a registered report section: a
package of report/sections, or a --plugin file. See report/section.py.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from core.cli import Job, main
from core.ray_session import run_on_worker
from core.run import StageResult
from infer.ensemble.stage import blend_stage
from report.build import METRICS, PAGE, compute_metrics, report_stage
from report.columns import column_file, gather_columns
from report.context import read_context
from report.page import render_page
from votes.records import open_records
from votes.verdicts.joined import with_judges

if TYPE_CHECKING:
    from core.run import Run
    from core.stage import Stage
    from votes.records import Records


def report(run: Run) -> list[StageResult]:
    """Make report/metrics.json and report/index.html from the finished blend and predictions."""
    records = open_records(run)
    run = with_judges(run, records)
    blend_manifest = blend_stage(run, records).require("blend")
    stage = report_stage(run, records, blend_manifest)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        manifest = run_on_worker(run, _make_report, run, records, blend_manifest, stage)
    return [StageResult("report", cached, manifest)]


def _make_report(run: Run, records: Records, blend_manifest: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Compute the numbers, render the page, and write both. Return the manifest."""
    started = time.monotonic()
    stage.begin()
    columns = gather_columns(run, records, stage.folder)
    context = read_context(run, records, blend_manifest, columns)
    metrics = compute_metrics(context)
    stage.folder.write_json(METRICS, metrics)
    stage.folder.write_bytes(PAGE, render_page(context, metrics).encode())
    column_files = {column_file(shard) for split in records.splits for shard in records.shards(split)}
    return stage.commit(
        rows={"train": records.rows("train")},
        metrics=metrics,
        keep={METRICS, PAGE, *column_files},
        seconds=time.monotonic() - started,
    )


JOB = Job("report", __doc__, report, saves_settings=False, reads=())

if __name__ == "__main__":
    sys.exit(main(JOB))
