"""Turn records into features, shard by shard, for every family that the settings name. Families are fitted on the
training records only. The unit of resume is the shard. Each file carries the fingerprint of its settings and records,
so changing one n-gram block rebuilds only that block's files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.progress import Progress
from core.ray_session import connect
from core.resources import family_requests, require_capacity
from core.run import Run, StageResult
from core.shards import Item, map_shards
from featurize.background import BackgroundFit, put_fitted
from featurize.counting_pass import fit_counts
from featurize.outputs import FeatureJob, Output, entry_family, feature_layout, features_stage, plan_outputs
from featurize.text import DistinctTexts
from votes.records import Records, open_records
from votes.schema import TEXTS

if TYPE_CHECKING:
    from core.stage import Stage
    from core.storage import Folder


def build_features(run: Run) -> list[StageResult]:
    """Write every configured feature file, for every split."""
    records = open_records(run)
    outputs = plan_outputs(run, records)
    stage = features_stage(run, records, outputs)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return [StageResult("featurize", True, manifest)]

    splits = [*records.splits, *records.sources]
    job = _begin(run, records, outputs, stage, splits)
    _make_all(run, job)

    columns = feature_layout(stage.folder, run.settings.featurize, outputs)
    count = len(columns.columns())
    manifest = stage.commit(
        rows={split: records.rows(split) for split in splits},
        schema={name: kind for block in columns.blocks for name, kind in block.schema().items()},
        metrics={"columns": count},
        keep={output.fitted for output in outputs if output.fitted is not None} | _files(job),
        extra={"catalogue": [entry for block in columns.blocks for entry in block.catalog()]},
    )
    return [StageResult("featurize", False, manifest, [f"{count:,} columns for the boosters"])]


def featurize_new_records(run: Run, records: Records, fitted: Folder) -> StageResult:
    """Write the features of new records, with the fitted state of another run's features/."""
    outputs = plan_outputs(run, records)
    stage = features_stage(run, records, outputs)
    manifest = None if run.force else stage.manifest()
    if manifest is not None:
        return StageResult("featurize", True, manifest)
    job = _begin(run, records, outputs, stage, records.splits, fitted)
    _make_all(run, job)
    rows = {split: records.rows(split) for split in records.splits}
    return StageResult("featurize", False, stage.commit(rows=rows, keep=_files(job)))


def _begin(
    run: Run,
    records: Records,
    outputs: Sequence[Output],
    stage: Stage,
    splits: Sequence[str],
    fitted: Folder | None = None,
) -> FeatureJob:
    """Begin the stage and return its job. `fitted` is the folder of the fitted state, by default the stage's."""
    connect(run)
    stage.begin()
    for request in family_requests(run.settings.featurize):
        require_capacity(request)
    return FeatureJob(
        run=run,
        records=records,
        fitted=stage.folder if fitted is None else fitted,
        target=stage.folder,
        outputs={output.folder: output for output in outputs},
        items=[{"split": split, "shard": name.partition("/")[2]} for split in splits for name in records.shards(split)],
    )


def _files(job: FeatureJob) -> set[str]:
    return {output.file(item) for output in job.outputs.values() for item in job.items}


def _make_all(run: Run, job: FeatureJob) -> None:
    """Fit and make what is missing. A run that only predicts fits nothing."""
    shared = [output for output in job.outputs.values() if not output.family.makes_own_files]
    late = [output for output in shared if output.family.fits_on_stream]
    early = [output for output in shared if not output.family.fits_on_stream]
    # A fit on a stream takes one core for long, so it begins first. The other cores make the rest.
    fits = [BackgroundFit(job, output) for output in late if job.fits and job.must_fit(output)]
    if job.fits:
        fit_counts(job, early)
    _make_shards(job, early, {})
    for entry in run.settings.featurize.families:
        if entry_family(entry).makes_own_files:
            entry_family(entry).make_files(job, entry)
    for fit in fits:
        fit.wait()
    incomplete = [output for output in late if job.to_make(output)]
    _make_shards(job, incomplete, {output.folder: put_fitted(job, output) for output in incomplete})


def _make_shards(job: FeatureJob, outputs: Sequence[Output], fitted: Mapping[str, Any]) -> None:
    """Make the missing files of outputs, all of a shard in one task. `fitted` holds references to what is shared."""
    if not outputs:
        return
    progress = Progress("featurize", "shards", total=len(job.items))
    work = _ShardWork(job.records.folder, job.fitted, job.target, tuple(outputs), fitted, job.redo)
    for done in map_shards(job.items, functools.partial(_make_shard, work=work)):
        progress.advance(rows=done["rows"])


@dataclass(frozen=True)
class _ShardWork:
    """What a task needs to make the files of a shard."""

    records: Folder
    fitted: Folder
    target: Folder
    outputs: tuple[Output, ...]
    references: Mapping[str, Any]  # by folder: what is fitted, in Ray's object store
    redo: bool

    def read_fitted(self, output: Output) -> Any:  # noqa: ANN401 - the family's own
        if output.folder in self.references:
            import ray

            return ray.get(self.references[output.folder])
        return output.family.read_fitted(output, self.fitted)


def _make_shard(item: Item, work: _ShardWork) -> Iterator[Item]:
    """Write every missing feature file of one shard."""
    missing = [output for output in work.outputs if work.redo or not output.is_made(work.target, item)]
    rows = 0
    if missing:
        table = work.records.read_table(f"{item['split']}/{item['shard']}", ["id", *TEXTS])
        rows = len(table)
        distinct = DistinctTexts.of(table)
        for output in missing:
            fitted = work.read_fitted(output)
            columns: dict[str, Any] = {"id": table["id"]}
            for entry in output.entries:
                columns |= entry_family(entry).transform(distinct, entry, fitted)
            work.target.write_table(output.file(item), pa.table(columns), output.by_split[item["split"]])
    yield {"rows": rows}
