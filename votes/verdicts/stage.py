"""The stage judges/: verdicts of judges, joined to the records. Each judge is a model of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from core import logs
from core.ray_session import run_on_worker
from core.run import StageResult
from core.stage import Stage
from votes.ingest import file_digest
from votes.verdicts.join import join_verdicts
from votes.verdicts.tables import VerdictFile, find_verdict_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from core.run import Run
    from core.settings.judges import JudgeTable
    from votes.records import Records

# Part of the fingerprint. Raise it when the same tables give other verdicts.
VERSION: Final = 1
_IDS_SHOWN: Final = 5


def make_verdicts(run: Run, records: Records) -> StageResult:
    """Read the tables of judges and join them to the records, unless it is done."""
    tables = run.settings.judges
    files = [(table, find_verdict_files(table, run.settings.data)) for table in tables]
    stage = _stage(run, records, files)
    manifest = None if run.force else stage.manifest()
    cached = manifest is not None
    if manifest is None:
        for table, of_table in files:
            logs.info("judges", f"{table.path}: format {', '.join(sorted({file.format for file in of_table}))}")
        stage.begin()
        metrics = run_on_worker(run, join_verdicts, files, records, stage.folder, stage.fingerprint)
        seconds = metrics.pop("seconds")
        rows = {split: sum(counts.get(split, 0) for counts in metrics["judges"].values()) for split in records.splits}
        manifest = stage.commit(
            rows={**rows, "quarantine": sum(metrics["quarantine"].values())}, metrics=metrics, seconds=seconds
        )
    return StageResult("judges", cached, manifest, _notes(stage, manifest))


def _stage(run: Run, records: Records, files: Sequence[tuple[JudgeTable, Sequence[VerdictFile]]]) -> Stage:
    """Return the stage. Which judges are used, and what they cost, does not change what is in the tables."""
    digests = [file_digest(file.file) for _, of_table in files for file in of_table]
    settings = [table.model_dump(mode="json", exclude={"path", "only", "cost_per_1000"}) for table, _ in files]
    return Stage(
        "judges",
        run.folder / "judges",
        settings={"version": VERSION, "tables": settings},
        inputs={"records": records.fingerprint, **{f"tables/{n}": digest for n, digest in enumerate(digests)}},
    )


def _notes(stage: Stage, manifest: Mapping[str, Any]) -> list[str]:
    """Return how many verdicts each judge has, and what did not join."""
    metrics = manifest["metrics"]
    if "train" not in manifest["rows"]:  # new pairs: the tables may be those of the training records
        pairs = ", ".join(f"{name} {counts['test']:,}" for name, counts in metrics["judges"].items())
        return [f"verdicts on the new pairs: {pairs or 'none'}"]
    counted = ", ".join(f"{name} {sum(counts.values()):,}" for name, counts in metrics["judges"].items())
    notes = [f"verdicts: {counted or 'none'}"]
    if metrics["quarantine"]:
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in metrics["quarantine"].items())
        notes.append(f"{sum(metrics['quarantine'].values()):,} rows quarantined ({reasons}): see {stage.folder}")
    if metrics["unknown_ids"]:
        notes.append(f"ids of no record, such as {', '.join(metrics['unknown_ids'][:_IDS_SHOWN])}")
    return notes
